// What a client says it is, in words for people. It is the client's own word: a name to know a session by, and no proof.
import { plain } from "./text";

/** The first that fits is meant: browsers name those that they want to be taken for, too. */
const BROWSERS: readonly (readonly [name: string, mark: RegExp])[] = [
    ["Edge", /\bEdg(?:e|A|iOS)?\/(\d+)/u],
    ["Opera", /\bOPR\/(\d+)/u],
    ["Samsung Internet", /\bSamsungBrowser\/(\d+)/u],
    ["Firefox", /\b(?:Firefox|FxiOS)\/(\d+)/u],
    ["Chromium", /\bHeadlessChrome\/(\d+)/u],
    ["Chrome", /\b(?:Chrome|CriOS)\/(\d+)/u],
    // On a phone its own name is beyond what the controller keeps.
    ["Safari", /\bVersion\/(\d+)/u],
];

const SYSTEMS: readonly (readonly [name: string, mark: RegExp])[] = [
    ["Android", /\bAndroid\b/u],
    ["iPhone", /\biPhone\b/u],
    ["iPad", /\biPad\b/u],
    ["Windows", /\bWindows\b/u],
    ["macOS", /\bMac OS X\b|\bMacintosh\b/u],
    ["ChromeOS", /\bCrOS\b/u],
    ["Linux", /\bLinux\b/u],
];

/** Our own programs: `horcruxctl/0.1.0 tonic/0.14`. */
const PROGRAM = /^(horcrux[a-z-]*)\/(\d[\w.]*)(?: tonic\/\S+)?$/u;

/** A User-Agent as a browser and its system; what isn't recognized stays as it came. */
export function agent(raw: string): string {
    const text = plain(raw).trim();
    const program = PROGRAM.exec(text);
    if (program !== null) {
        return `${program[1] ?? ""} ${program[2] ?? ""}`;
    }
    // Every browser begins so; nothing else has a reason to.
    if (!text.startsWith("Mozilla/5.0 (")) {
        return text;
    }
    for (const [name, mark] of BROWSERS) {
        const found = mark.exec(text);
        if (found !== null) {
            const system = SYSTEMS.find(([, of]) => of.test(text))?.[0];
            return `${name} ${found[1] ?? ""}${system === undefined ? "" : ` on ${system}`}`;
        }
    }
    return text;
}
