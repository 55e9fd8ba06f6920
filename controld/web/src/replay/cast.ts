// Asciicast v2, as the controller writes it: controld/src/recording/tape.rs. Pure.
import { Pieces, type Reader, Unreadable, isObject, parsed, time } from "./reader";
import { type Kind, type Tape } from "./tape";
import { visible } from "./typed";

const NEWLINE = 10;
const ANEW = "the line was opened anew";
const LOST = /^\d{1,20} bytes are missing here$/u;

export interface Size {
    readonly columns: number;
    readonly lines: number;
}

/** What a terminal has that says nothing of itself. */
const USUAL: Size = { columns: 80, lines: 24 };
const MOST: Size = { columns: 400, lines: 200 };

export class CastReader implements Reader {
    size: Size = USUAL;
    readonly #tape: Tape;
    readonly #pieces = new Pieces();
    #hasHeader = false;

    constructor(tape: Tape) {
        this.#tape = tape;
    }

    take(bytes: Uint8Array): void {
        const all = this.#pieces.add(bytes);
        let from = 0;
        for (let end = all.indexOf(NEWLINE); end !== -1; end = all.indexOf(NEWLINE, from)) {
            this.#line(parsed(all.subarray(from, end)), this.#pieces.offset + end + 1 - from);
            this.#pieces.offset += end + 1 - from;
            from = end + 1;
        }
        this.#pieces.used(all, from);
    }

    #line(line: unknown, offset: number): void {
        if (!this.#hasHeader) {
            this.size = size(line);
            this.#hasHeader = true;
            return;
        }
        if (!Array.isArray(line)) {
            throw new Unreadable("it has a line that is no event");
        }
        const [seconds, code, text] = line as unknown[];
        if (typeof seconds !== "number" || typeof code !== "string" || typeof text !== "string") {
            throw new Unreadable("it has a line that is no event");
        }
        const at = time(seconds * 1000);
        switch (code) {
            case "o":
                this.#put(at, "said", text);
                break;
            case "i":
                this.#put(at, "typed", visible(text));
                break;
            case "m":
                this.#put(at, LOST.test(text) ? "lost" : text === ANEW ? "anew" : "note", text);
                break;
            case "h":
                this.#tape.seal(offset);
                break;
            default:
                // Players pass over what they don't know.
                break;
        }
    }

    #put(at: number, kind: Kind, text: string): void {
        this.#tape.add(at, kind, new TextEncoder().encode(text));
    }
}

function size(header: unknown): Size {
    if (!isObject(header) || header["version"] !== 2) {
        throw new Unreadable("it doesn't begin as asciicast v2 does");
    }
    const within = (found: unknown, most: number, usual: number): number =>
        typeof found === "number" && Number.isInteger(found) && found >= 1 && found <= most ? found : usual;
    return {
        columns: within(header["width"], MOST.columns, USUAL.columns),
        lines: within(header["height"], MOST.lines, USUAL.lines),
    };
}
