// What was typed, as people read it. Pure.
import { plain } from "../words/text";

const SIGNS: ReadonlyMap<string, string> = new Map([
    ["\r", "⏎"],
    ["\n", "⏎"],
    ["\t", "⇥"],
    ["\b", "⌫"],
    ["\u007F", "⌫"],
]);

/** Control characters as signs of their own. */
export function visible(text: string): string {
    return plain(
        text.replace(/[\0-\u001F\u007F]/gu, (control) => SIGNS.get(control) ?? String.fromCharCode(0x2400 + control.charCodeAt(0))),
    );
}

/** By X11's keysyms, of keys that are no letter. */
const NAMES: ReadonlyMap<number, string> = new Map([
    [0xff08, "⌫"],
    [0xff09, "⇥"],
    [0xff0d, "⏎"],
    [0xff8d, "⏎"],
    [0xff1b, "[Esc]"],
    [0xff50, "[Home]"],
    [0xff51, "[←]"],
    [0xff52, "[↑]"],
    [0xff53, "[→]"],
    [0xff54, "[↓]"],
    [0xff55, "[Page Up]"],
    [0xff56, "[Page Down]"],
    [0xff57, "[End]"],
    [0xff61, "[Print]"],
    [0xff63, "[Insert]"],
    [0xffff, "[Delete]"],
    [0xffe3, "[Ctrl]"],
    [0xffe4, "[Ctrl]"],
    [0xffe7, "[Meta]"],
    [0xffe8, "[Meta]"],
    [0xffe9, "[Alt]"],
    [0xffea, "[Alt]"],
    [0xffeb, "[Super]"],
    [0xffec, "[Super]"],
    // Shift is heard in the letter.
    [0xffe1, ""],
    [0xffe2, ""],
]);
const F1 = 0xffbe;
const F35 = 0xffe0;

function keyName(symbol: number): string {
    const known = NAMES.get(symbol);
    if (known !== undefined) {
        return known;
    }
    if (symbol >= F1 && symbol <= F35) {
        return `[F${symbol - F1 + 1}]`;
    }
    if ((symbol >= 0x20 && symbol < 0x7f) || (symbol >= 0xa0 && symbol < 0x100)) {
        return plain(String.fromCharCode(symbol));
    }
    const point = symbol - 0x0100_0000;
    const isLetter = point >= 0x100 && point <= 0x10_ffff && !(point >= 0xd800 && point < 0xe000);
    return isLetter ? plain(String.fromCodePoint(point)) : `[key ${symbol.toString(16)}]`;
}

/** The keys in what a viewer of a screen sent. controld/src/console/rfb/message.rs knows the same messages. */
export class Keys {
    #rest = new Uint8Array();
    #stage: "version" | "security" | "init" | "message" | "lost" = "version";
    /** Of a clipboard's text. */
    #skip = 0;

    /** The text of the keys that went down. */
    take(bytes: Uint8Array): string {
        const all = new Uint8Array(this.#rest.length + bytes.length);
        all.set(this.#rest);
        all.set(bytes, this.#rest.length);
        let text = "";
        let from = 0;
        while (from < all.length && this.#stage !== "lost") {
            const skipped = Math.min(this.#skip, all.length - from);
            if (skipped > 0) {
                this.#skip -= skipped;
                from += skipped;
                continue;
            }
            const length = this.#length(all.subarray(from));
            if (length === "unknown") {
                this.#stage = "lost";
                text += "[what follows can't be read]";
            } else if (length === undefined || from + length > all.length) {
                break;
            } else {
                text += this.#message(all.subarray(from, from + length));
                from += length;
            }
        }
        this.#rest = this.#stage === "lost" ? new Uint8Array() : all.slice(from);
        return text;
    }

    /** Undefined where that isn't known yet. */
    #length(begun: Uint8Array): number | "unknown" | undefined {
        const byte = (at: number): number | undefined => begun[at];
        const word = (at: number): number | undefined => {
            const [high, low] = [begun[at], begun[at + 1]];
            return high === undefined || low === undefined ? undefined : high * 256 + low;
        };
        const plus = (length: number, more: number | undefined, each: number): number | undefined =>
            more === undefined ? undefined : length + more * each;
        if (this.#stage !== "message") {
            return this.#stage === "version" ? 12 : 1;
        }
        switch (byte(0)) {
            case 0:
                return 20;
            case 2:
                return plus(4, word(2), 4);
            case 3:
            case 150:
                return 10;
            case 4:
            case 6:
                return 8;
            case 5:
                return 6;
            case 248:
                return plus(9, byte(8), 1);
            case 250:
                return 4;
            case 251:
                return plus(8, byte(6), 16);
            case 255:
                if (byte(1) === 1) {
                    return word(2) === undefined ? undefined : word(2) === 2 ? 10 : 4;
                }
                return byte(1) === undefined ? undefined : 12;
            default:
                return "unknown";
        }
    }

    #message(message: Uint8Array): string {
        if (this.#stage !== "message") {
            const isOldest = this.#stage === "version" && message[10] === 0x33;
            this.#stage = this.#stage === "version" && !isOldest ? "security" : this.#stage === "init" ? "message" : "init";
            return "";
        }
        const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
        switch (message[0]) {
            case 4:
                return message[1] === 0 ? "" : keyName(view.getUint32(4));
            case 255:
                return message[1] !== 0 || view.getUint16(2) === 0 ? "" : keyName(view.getUint32(4));
            case 6: {
                this.#skip = Math.abs(view.getInt32(4));
                return `[clipboard: ${this.#skip} bytes]`;
            }
            default:
                return "";
        }
    }
}
