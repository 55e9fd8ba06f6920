import svelte from "eslint-plugin-svelte";
import ts from "typescript-eslint";
import svelteConfig from "./svelte.config.js";

export default ts.config(
  { ignores: ["dist/", "src/gen/", "node_modules/", "vite.config.ts"] },
  ts.configs.strict,
  svelte.configs.recommended,
  {
    files: ["**/*.svelte"],
    languageOptions: { parserOptions: { parser: ts.parser, extraFileExtensions: [".svelte"], svelteConfig } },
  },
  {
    languageOptions: { globals: { document: "readonly", window: "readonly", performance: "readonly" } },
    rules: {
      // The one trusted-types policy that the page has would let any text through.
      "svelte/no-at-html-tags": "error",
      "no-console": "error",
      eqeqeq: "error",
    },
  },
);
