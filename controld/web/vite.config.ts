import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
    plugins: [svelte()],
    build: {
        target: "es2022",
        // The page's policy has no data: scripts, styles or fonts.
        assetsInlineLimit: 0,
        // What the bundle contains wants its notices beside it.
        license: { fileName: "third-party-notices.md" },
        modulePreload: { polyfill: false },
        rolldownOptions: {
            // A console, a guest's and a recording are documents of their own: a terminal needs a looser policy than the page has.
            input: ["index.html", "console.html", "guest.html", "recordings.html"],
            // A remark on how busy this machine is.
            checks: { bundlerTimings: false },
        },
    },
});
