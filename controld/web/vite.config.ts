import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte()],
  // The page may load its own files only: nothing is inlined as data.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  test: { environment: "happy-dom", include: ["src/**/*.test.ts"] },
  // Without it Vitest takes Svelte's server half.
  ...(process.env.VITEST ? { resolve: { conditions: ["browser"] } } : {}),
});
