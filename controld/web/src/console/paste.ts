// A text as the keys that write it on a keyboard of some country: for guests that know of no clipboard, as at a login. Pure.
import { ALT_GR, SHIFT, type Stroke } from "./keys";
import type { Layout, Press } from "./layouts";

/** More than this is for a file. */
export const LONGEST_PASTE = 20_000;

export interface Step {
    readonly character: string;
    readonly strokes: readonly Stroke[];
}

export interface Plan {
    readonly steps: readonly Step[];
    /** Characters that this keyboard can't write, each once. Then nothing is to be sent. */
    readonly missing: readonly string[];
}

export function plan(text: string, layout: Layout): Plan {
    const steps: Step[] = [];
    const missing = new Set<string>();
    for (const character of text.replaceAll(/\r\n?/gu, "\n").normalize("NFC")) {
        const presses = written(character, layout);
        if (presses === undefined) {
            missing.add(character);
        } else {
            steps.push({ character, strokes: presses.flatMap(typed) });
        }
    }
    return { steps, missing: [...missing] };
}

/** In words, for a character may be one that isn't seen. */
export function nameOf(character: string): string {
    const point = `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
    return /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(character) ? character : point;
}

/** What is typed, with the keys that aren't seen otherwise. */
export function preview(steps: readonly Step[]): string {
    const shown = steps.slice(0, PREVIEW).map(({ character }) => PREVIEWED[character] ?? character);
    return shown.join("") + (steps.length > PREVIEW ? " …" : "");
}

const PREVIEW = 400;
const PREVIEWED: Readonly<Record<string, string>> = { "\n": "⏎\n", "\t": "⇥" };

function written(character: string, { keys, dead }: Layout): readonly Press[] | undefined {
    const key = keys.get(character);
    if (key !== undefined) {
        return [key];
    }
    const space = keys.get(" ");
    const alone = dead.get(ALONE[character] ?? "");
    if (alone !== undefined && space !== undefined) {
        return [alone, space];
    }
    const [base, mark, ...more] = character.normalize("NFD");
    const accent = dead.get(mark ?? "");
    const letter = keys.get(base ?? "");
    return accent === undefined || letter === undefined || more.length > 0 ? undefined : [accent, letter];
}

/** What a dead key and a space write in every guest: with others the guests differ. */
const ALONE: Readonly<Record<string, string>> = { "^": "\u0302", "`": "\u0300", "~": "\u0303" };

function typed({ code, keysym, shift, altGr }: Press): Stroke[] {
    const held = [...(shift ? [SHIFT] : []), ...(altGr ? [ALT_GR] : [])];
    return [
        ...held.map((key) => ({ ...key, down: true })),
        { code, keysym, down: true },
        { code, keysym, down: false },
        ...held.toReversed().map((key) => ({ ...key, down: false })),
    ];
}

/** Sends one step after the other, at a rate. */
export class Typing {
    #timer: ReturnType<typeof setTimeout> | undefined;

    run(steps: readonly Step[], perSecond: () => number, send: (step: Step) => void, done: () => void): void {
        this.cancel();
        const next = (at: number): void => {
            const step = steps[at];
            if (step === undefined) {
                done();
                return;
            }
            send(step);
            this.#timer = setTimeout(() => {
                next(at + 1);
            }, 1000 / perSecond());
        };
        next(0);
    }

    /** No key is down then: a step lets go of all it pressed. */
    cancel(): void {
        clearTimeout(this.#timer);
    }
}
