// Adds to the bundle's notices what is inside of its packages and has other authors, and where the source of noVNC is: its
// licence asks for that.
import { appendFileSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const novnc = join(here, "node_modules/@novnc/novnc");
const text = (file) => readFileSync(join(novnc, file), "utf8").trim();
const { version } = JSON.parse(text("package.json"));

/** The comments that a file begins with. */
function head(file) {
    const found = /^(?:\s*\/\*[\s\S]*?\*\/)+/u.exec(text(file));
    if (found === null) {
        throw new Error(`${file} of noVNC no longer begins with its authors`);
    }
    return found[0].trim();
}

const parts = [
    [
        `@novnc/novnc - ${version}: its source`,
        `Its files are part of the bundle unchanged. They are at https://github.com/novnc/noVNC/tree/v${version} and at
https://registry.npmjs.org/@novnc/novnc/-/novnc-${version}.tgz.`,
    ],
    ["pako, in @novnc/novnc (MIT)", text("vendor/pako/LICENSE")],
    ["core/crypto/des.js, in @novnc/novnc (BSD style)", head("core/crypto/des.js")],
    ["Mozilla Public License 2.0", text("docs/LICENSE.MPL-2.0")],
];
const added = parts.map(([title, body]) => `\n## ${title}\n\n${body}\n`);
appendFileSync(join(here, "dist/third-party-notices.md"), added.join(""));
