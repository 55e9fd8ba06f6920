import { expect, it } from "vitest";

import { Conversation, Untold } from "./conversation";
import { turned } from "./swap";

const text = (words: string): Uint8Array => new TextEncoder().encode(words);
const NOVNC = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];
const QEMU = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
const LOW = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];

function init(width = 64, height = 48, format = QEMU, name = "played"): Uint8Array {
    const all = new Uint8Array(24 + name.length);
    const view = new DataView(all.buffer);
    view.setUint16(0, width);
    view.setUint16(2, height);
    all.set(format, 4);
    view.setUint32(20, name.length);
    all.set(text(name), 24);
    return all;
}

/** What a server says before its first picture, by version. */
const GREETINGS: readonly (readonly [string, Uint8Array[]])[] = [
    ["003.003", [text("RFB 003.008\n"), Uint8Array.of(0, 0, 0, 1), init()]],
    ["003.007", [text("RFB 003.008\n"), Uint8Array.of(2, 2, 1), init()]],
    ["003.008", [text("RFB 003.008\n"), Uint8Array.of(1, 1), Uint8Array.of(0, 0, 0, 0), init()]],
];

function met(version: string, said: readonly Uint8Array[], size: number): { heard: number[]; talk: Conversation } {
    const talk = new Conversation();
    const heard: number[] = [];
    const [greeting, ...rest] = said;
    const all = rest.flatMap((piece) => [...piece]);
    heard.push(...talk.said(greeting ?? new Uint8Array()).flatMap((piece) => [...piece]));
    talk.wish(text(`RFB ${version}\n`));
    for (let at = 0; at < all.length; at += size) {
        heard.push(...talk.said(Uint8Array.from(all.slice(at, at + size))).flatMap((piece) => [...piece]));
    }
    return { heard, talk };
}

it.each(GREETINGS)("of version %s is told as the newest, however it is cut", (version, said) => {
    for (const size of [1, 3, 1000]) {
        const { heard, talk } = met(version, said, size);
        expect(heard).toEqual([...text("RFB 003.008\n"), 1, 1, 0, 0, 0, 0, ...init().slice(0, 20), 0, 0, 0, 0]);
        expect(talk.said(Uint8Array.of(2, 7))).toEqual([Uint8Array.of(2, 7)]);
        expect(talk.order).toBe("bgr");
    }
});

function wished(format: readonly number[]): Conversation {
    const { talk } = met("003.008", GREETINGS[2]?.[1] ?? [], 1000);
    talk.wish(Uint8Array.of(0, 0, 0, 0, ...format));
    return talk;
}

it("knows how pixels lie, and says where it can't be told", () => {
    const seen = wished(NOVNC);
    seen.said(Uint8Array.of(0));
    expect(seen.order).toBe("rgb");
    for (const wrong of [LOW, [32, 24, 1, ...NOVNC.slice(3)], [32, 24, 0, 0, ...NOVNC.slice(4)], [...NOVNC.slice(0, 10), 3, 8, 16, 0, 0, 0]]) {
        expect(() => wished(wrong).said(Uint8Array.of(0))).toThrow(Untold);
    }
    // Nothing had been drawn as it was wanted first.
    const low = wished(LOW);
    low.wish(Uint8Array.of(0, 0, 0, 0, ...QEMU));
    low.said(Uint8Array.of(0));
    expect(low.order).toBe("bgr");
    expect(() => {
        low.wish(Uint8Array.of(0, 0, 0, 0, ...NOVNC));
    }).toThrow(Untold);
});

it("names what the viewer asked for beyond what can be shown", () => {
    const talk = wished(NOVNC);
    expect(talk.foreign).toBe("");
    talk.wish(Uint8Array.of(2, 0, 0, 2, 0, 0, 0, 7, 255, 255, 254, 253));
    expect(talk.foreign).toMatch(/sound/u);
    talk.wish(Uint8Array.of(2, 0, 255, 255));
    expect(talk.foreign).toBe("");
});

it.each([
    ["a password", [text("RFB 003.008\n"), Uint8Array.of(1, 2)]],
    ["nobody", [text("RFB 003.008\n"), Uint8Array.of(0)]],
    ["a failure", [text("RFB 003.008\n"), Uint8Array.of(1, 1), Uint8Array.of(0, 0, 0, 1)]],
    ["no size", [text("RFB 003.008\n"), Uint8Array.of(1, 1), Uint8Array.of(0, 0, 0, 0), init(65_535, 65_535)]],
    ["a long name", [text("RFB 003.008\n"), Uint8Array.of(1, 1), Uint8Array.of(0, 0, 0, 0), init().fill(255, 20, 24)]],
])("that asks for %s is not told", (_, said) => {
    expect(() => met("003.008", said, 1000)).toThrow(Untold);
});

it("takes any bytes, or says that it can't", () => {
    let state = 3;
    for (let round = 0; round < 500; round += 1) {
        const talk = new Conversation();
        try {
            for (let piece = 0; piece < 6; piece += 1) {
                const noise = Uint8Array.from({ length: 30 }, () => (state = (Math.imul(state, 69_069) + 1) >>> 0) >>> 24);
                talk.said(noise);
                talk.wish(noise.slice(0, [12, 20, 7][piece % 3]));
            }
        } catch (error) {
            expect(error).toBeInstanceOf(Untold);
        }
    }
});

it("turns red and blue", () => {
    const pixels = Uint8Array.of(1, 2, 3, 255, 4, 5, 6, 255);
    expect(turned(pixels)).toEqual(Uint8Array.of(3, 2, 1, 255, 6, 5, 4, 255));
    expect(pixels[0]).toBe(1);
});
