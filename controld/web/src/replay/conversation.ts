// One recorded conversation of a VM's screen, as noVNC can be told it: brought through the greetings as they were recorded,
// and with what noVNC must know of the pixels. Pure.
//
//   version ─► types ─► result ─► init ─► picture          what noVNC hears: greetings of its own making, the screen's size,
//      │         └─ 3.7 ────────────▲                     and then what was recorded, as it is
//      └─ 3.3, where the server decides

/** How a pixel lies in four bytes. noVNC asks for `rgb`, and QEMU gives `bgr` to whoever asks for nothing. */
export type Order = "rgb" | "bgr";

/** 8K, and as high as wide: what a VM says of its screen is not trusted. */
const MOST_PIXELS = 7680 * 4320;
const MOST_SIDE = 8192;
const LONGEST_NAME = 1 << 16;

const GREETING = new TextEncoder().encode("RFB 003.008\n");
/** That there may be no password, and that this is well. */
const LET_IN = Uint8Array.of(1, 1, 0, 0, 0, 0);
const FORMAT_AT = 4;
const INIT = 24;

const SET_PIXEL_FORMAT = 0;
const SET_ENCODINGS = 2;

export class Untold extends Error {}

export class Conversation {
    #stage: "version" | "types" | "result" | "init" | "picture" = "version";
    #begun = new Uint8Array();
    /** The last digit of the version that the viewer chose. */
    #version = "8";
    #format: Uint8Array | undefined;
    #order: Order | undefined;
    #encodings: readonly number[] = [];

    /** What the viewer told of how it wants the picture. */
    wish(bytes: Uint8Array): void {
        if (bytes.length === GREETING.length && bytes[0] === GREETING[0]) {
            this.#version = String.fromCharCode(bytes[10] ?? 0);
        } else if (bytes.length === 20 && bytes[0] === SET_PIXEL_FORMAT) {
            this.#format = bytes.slice(4);
            // From which picture on it counts, the recording doesn't say.
            if (this.#order !== undefined && order(this.#format) !== this.#order) {
                throw new Untold("The viewer changed midway how it wants its colours");
            }
        } else if (bytes[0] === SET_ENCODINGS) {
            this.#encodings = encodings(bytes);
        }
    }

    /** What noVNC hears of it, piece by piece. */
    said(bytes: Uint8Array): Uint8Array[] {
        if (this.#stage === "picture") {
            this.#settle();
            return [bytes];
        }
        this.#begun = joined(this.#begun, bytes);
        const heard: Uint8Array[] = [];
        for (let used = this.#greet(heard); used !== undefined; used = this.#greet(heard)) {
            this.#begun = this.#begun.slice(used);
        }
        return heard;
    }

    /** How its pixels lie, once that counts. */
    get order(): Order | undefined {
        return this.#order;
    }

    /** What the viewer asked for and noVNC never does, where one of that came. */
    get foreign(): string {
        const names = this.#encodings.flatMap((number) => FOREIGN.get(number) ?? []);
        return names.length === 0 ? "" : `The viewer asked for what this page doesn't know: ${names.join(", ")}.`;
    }

    /** How many bytes of what has begun are done with, where a part of the greetings is there. */
    #greet(heard: Uint8Array[]): number | undefined {
        const begun = this.#begun;
        switch (this.#stage) {
            case "version":
                if (begun.length < GREETING.length) {
                    return undefined;
                }
                this.#stage = "types";
                return GREETING.length;
            case "types":
                return this.#types(begun);
            case "result":
                if (begun.length < 4) {
                    return undefined;
                }
                refuse(begun.subarray(0, 4).some((byte) => byte !== 0), "The screen let nobody in");
                this.#stage = "init";
                return 4;
            case "init":
                return this.#init(begun, heard);
            case "picture": {
                if (begun.length === 0) {
                    return undefined;
                }
                this.#settle();
                heard.push(begun);
                return begun.length;
            }
        }
    }

    #types(begun: Uint8Array): number | undefined {
        const isOldest = this.#version === "3";
        const length = isOldest ? 4 : 1 + (begun[0] ?? 0);
        if (begun.length === 0 || begun.length < length) {
            return undefined;
        }
        const types = begun.subarray(isOldest ? 3 : 1, length);
        refuse(!types.includes(1), "The screen asked for a password, or let nobody in");
        this.#stage = this.#version === "8" ? "result" : "init";
        return length;
    }

    #init(begun: Uint8Array, heard: Uint8Array[]): number | undefined {
        if (begun.length < INIT) {
            return undefined;
        }
        const view = new DataView(begun.buffer, begun.byteOffset, begun.byteLength);
        const [width, height, name] = [view.getUint16(0), view.getUint16(2), view.getUint32(20)];
        refuse(Math.max(width, height) > MOST_SIDE || width * height > MOST_PIXELS, `A screen of ${width} by ${height} pixels is none`);
        refuse(name > LONGEST_NAME, "The screen has a name that is too long");
        if (begun.length < INIT + name) {
            return undefined;
        }
        const head = begun.slice(0, INIT);
        // It is called what it likes, and nobody here asks.
        head.fill(0, 20);
        this.#format ??= head.slice(FORMAT_AT, FORMAT_AT + 16);
        this.#stage = "picture";
        // noVNC takes a version by itself.
        heard.push(GREETING, joined(LET_IN, head));
        return INIT + name;
    }

    /** Before the first picture: from here on it counts how pixels lie. */
    #settle(): void {
        this.#order ??= order(this.#format ?? new Uint8Array(16));
    }
}

/** Refused where noVNC can't be told of it: its decoders take four bytes for a pixel, and each colour a byte of those. */
function order(format: Uint8Array): Order {
    const view = new DataView(format.buffer, format.byteOffset, format.byteLength);
    const [bits, depth, big, isTrue] = [format[0], format[1], format[2], format[3]];
    const isFull = [4, 6, 8].every((at) => view.getUint16(at) === 255);
    const shifts = format.slice(10, 13).join(" ");
    const found = shifts === "0 8 16" ? "rgb" : shifts === "16 8 0" ? "bgr" : undefined;
    if (bits !== 32 || depth !== 24 || big !== 0 || isTrue === 0 || !isFull || found === undefined) {
        throw new Untold(`The viewer had asked for colours of ${bits ?? 0} bits in a form that this page can't read`);
    }
    return found;
}

/** What QEMU sends to whoever asks for it, and noVNC never asks for. */
const FOREIGN: ReadonlyMap<number, string> = new Map([
    [17, "ZYWRLE"],
    [-257, "changes of the pointer's kind"],
    [-259, "sound"],
    [-314, "pointers that let through"],
    [0x574d_5669, "changes of the colours' form"],
]);

function encodings(message: Uint8Array): number[] {
    const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
    const count = Math.floor((message.length - 4) / 4);
    return Array.from({ length: Math.max(0, count) }, (_, place) => view.getInt32(4 + place * 4));
}

function refuse(isWrong: boolean, words: string): void {
    if (isWrong) {
        throw new Untold(words);
    }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(first.length + second.length);
    all.set(first);
    all.set(second, first.length);
    return all;
}
