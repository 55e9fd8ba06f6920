import { defineConfig } from "eslint/config";
import svelte from "eslint-plugin-svelte";
import typescript from "typescript-eslint";

import svelteConfig from "./svelte.config.js";

const typed = {
    parserOptions: {
        projectService: true,
        tsconfigRootDir: import.meta.dirname,
        extraFileExtensions: [".svelte"],
    },
};

export default defineConfig(
    { ignores: ["dist/", "node_modules/", "src/gen/", "*.js", "*.mjs"] },
    typescript.configs.strictTypeChecked,
    svelte.configs.recommended,
    { languageOptions: typed },
    {
        files: ["**/*.svelte", "**/*.svelte.ts"],
        languageOptions: { parserOptions: { parser: typescript.parser, svelteConfig } },
    },
    {
        rules: {
            // Would pass Svelte's trusted types policy with text from a guest.
            "svelte/no-at-html-tags": "error",
            // The page's policy refuses them; `style:` goes through the CSSOM, which it allows.
            "svelte/no-inline-styles": ["error", { allowTransitions: false }],
            "svelte/button-has-type": "error",
            // State is replaced, not changed: the plain collections are what is meant.
            "svelte/prefer-svelte-reactivity": "off",
            "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
            "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
        },
    },
);
