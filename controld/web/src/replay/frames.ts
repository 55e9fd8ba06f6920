// Timed RFB, as the controller writes it: controld/src/recording/tape.rs. Pure.
import { LONGEST, Pieces, type Reader, Unreadable, isObject, parsed, time } from "./reader";
import type { Tape } from "./tape";
import { Keys } from "./typed";

const NEWLINE = 10;
/** A letter, microseconds (8 bytes) and a length (4 bytes). */
const HEAD = 13;
const WIDE = 2 ** 32;

export class FrameReader implements Reader {
    readonly #tape: Tape;
    readonly #pieces = new Pieces();
    #keys = new Keys();
    #hasHeader = false;

    constructor(tape: Tape) {
        this.#tape = tape;
    }

    take(bytes: Uint8Array): void {
        const all = this.#pieces.add(bytes);
        let from = 0;
        for (let length = this.#length(all, from); length !== undefined; length = this.#length(all, from)) {
            this.#pieces.offset += length;
            if (this.#hasHeader) {
                this.#record(all.subarray(from, from + length));
            } else {
                header(parsed(all.subarray(from, from + length)));
                this.#hasHeader = true;
            }
            from += length;
        }
        this.#pieces.used(all, from);
    }

    /** Of the next record, where all of it is there. */
    #length(all: Uint8Array, from: number): number | undefined {
        if (!this.#hasHeader) {
            const end = all.indexOf(NEWLINE, from);
            return end === -1 ? undefined : end + 1 - from;
        }
        if (all.length - from < HEAD) {
            return undefined;
        }
        const own = view(all).getUint32(from + 9);
        if (own > LONGEST) {
            throw new Unreadable("it has a record that is too long");
        }
        return all.length - from < HEAD + own ? undefined : HEAD + own;
    }

    #record(record: Uint8Array): void {
        const head = view(record);
        const at = time((head.getUint32(1) * WIDE + head.getUint32(5)) / 1000);
        const own = record.subarray(HEAD);
        switch (String.fromCharCode(record[0] ?? 0)) {
            case "S":
                this.#tape.add(at, "said", own);
                break;
            case "W":
                this.#tape.add(at, "wish", own);
                break;
            case "C": {
                const text = this.#keys.take(own);
                if (text !== "") {
                    this.#words(at, "typed", text);
                }
                break;
            }
            case "N":
                this.#keys = new Keys();
                this.#words(at, "anew", "the screen was opened anew");
                break;
            case "L":
                if (own.length !== 8) {
                    throw new Unreadable("it has a record that makes no sense");
                }
                this.#words(at, "lost", `${view(own).getBigUint64(0)} bytes are missing here`);
                break;
            case "H":
                this.#tape.seal(this.#pieces.offset);
                break;
            default:
                throw new Unreadable("it has a record of an unknown sort");
        }
    }

    #words(at: number, kind: "typed" | "anew" | "lost", text: string): void {
        this.#tape.add(at, kind, new TextEncoder().encode(text));
    }
}

function header(found: unknown): void {
    if (!isObject(found) || found["horcruxRfb"] !== 1) {
        throw new Unreadable("it doesn't begin as a recorded screen does");
    }
}

function view(bytes: Uint8Array): DataView {
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
