import { expect, it } from "vitest";

import { Keys, visible } from "./typed";

const HELLO = [...new TextEncoder().encode("RFB 003.008\n"), 1, 1];
const key = (symbol: number, down = 1): number[] => [4, down, 0, 0, symbol >>> 24, (symbol >> 16) & 255, (symbol >> 8) & 255, symbol & 255];

it("shows what would not be seen", () => {
    expect(visible("ls\r\u0003\u001B[A\u007F\u202E")).toBe("ls⏎␃␛[A⌫\uFFFD");
});

it("finds the keys that went down, however they come", () => {
    const said = [
        ...HELLO,
        ...[0, ...Array<number>(19).fill(0)],
        ...[2, 0, 0, 2, ...Array<number>(8).fill(4)],
        ...key(0xffe3),
        ...key(0x63),
        ...key(0x63, 0),
        ...[5, 1, 0, 4, 0, 4],
        ...[255, 0, 0, 1, 0, 0, 0xff, 0x0d, 0, 0, 0, 28],
        ...[6, 0, 0, 0, 0, 0, 0, 8, ...key(0x61)],
        ...[251, 0, 1, 1, 1, 1, 1, 0, ...Array<number>(16).fill(4)],
        ...key(0x0100_20ac),
        ...key(0xffbe),
        ...key(0x0100_202e),
    ];
    for (const size of [1, 5, 1000]) {
        const keys = new Keys();
        let text = "";
        for (let at = 0; at < said.length; at += size) {
            text += keys.take(Uint8Array.from(said.slice(at, at + size)));
        }
        expect(text).toBe("[Ctrl]c⏎[clipboard: 8 bytes]€[F1]\uFFFD");
    }
});

it("says once that it can't follow", () => {
    const keys = new Keys();
    expect(keys.take(Uint8Array.from([...HELLO, 99, 1, 2]))).toBe("[what follows can't be read]");
    expect(keys.take(Uint8Array.from(key(0x61)))).toBe("");
});

it("takes any bytes", () => {
    let state = 7;
    for (let round = 0; round < 300; round += 1) {
        const keys = new Keys();
        const noise = Uint8Array.from({ length: 200 }, () => (state = (Math.imul(state, 69_069) + 1) >>> 0) >>> 24);
        keys.take(Uint8Array.from(HELLO));
        expect(keys.take(noise).length).toBeLessThan(10_000);
    }
});
