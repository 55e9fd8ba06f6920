import { describe, expect, it } from "vitest";

import { CastReader } from "./cast";
import { FrameReader } from "./frames";
import { type Reader, Unreadable } from "./reader";
import { Tape } from "./tape";

const CAST = '{"version":2,"width":100,"height":30}\n';
const FRAMES = '{"horcruxRfb":1}\n';
const text = (bytes: string): Uint8Array => new TextEncoder().encode(bytes);

type Make = (tape: Tape) => Reader;
const cast: Make = (tape) => new CastReader(tape);
const frames: Make = (tape) => new FrameReader(tape);

function record(letter: string, micros: bigint, own: Uint8Array): Uint8Array {
    const all = new Uint8Array(13 + own.length);
    const view = new DataView(all.buffer);
    all[0] = letter.charCodeAt(0);
    view.setBigUint64(1, micros);
    view.setUint32(9, own.length);
    all.set(own, 13);
    return all;
}

function joined(...pieces: Uint8Array[]): Uint8Array {
    return Uint8Array.from(pieces.flatMap((piece) => [...piece]));
}

/** Read in pieces of so many bytes. */
function read(make: Make, bytes: Uint8Array, size = bytes.length, tape = new Tape()): Tape {
    const reader = make(tape);
    for (let at = 0; at < bytes.length; at += size) {
        reader.take(bytes.slice(at, at + size));
    }
    return tape;
}

function told(tape: Tape): (readonly [number, string, string])[] {
    return Array.from({ length: tape.count }, (_, index) => [
        tape.at(index),
        tape.kind(index),
        new TextDecoder("latin1").decode(tape.bytes(index)),
    ]);
}

/** The same for the same seed. */
function random(seed: number): () => number {
    let state = seed;
    return () => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return state / 2 ** 32;
    };
}

const LINE = text(
    `${CAST}[0.5,"o","caf\\u00e9\\r\\n"]\n[1.0,"h","00"]\n[1.25,"i","ls\\r\\u0003"]\n[2.0,"m","9 bytes are missing here"]\n` +
        `[2.5,"m","the line was opened anew"]\n[3,"x","later"]\n[3,"m","<b>else"]\n`,
);
const SCREEN = joined(
    text(FRAMES),
    record("S", 1_000n, text("RFB 003.008\n")),
    record("W", 1_500n, text("RFB 003.008\n")),
    record("H", 2_000n, new Uint8Array(32)),
    record("L", 2_500n, Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 0)),
    // Of the conversation before, and not whole.
    record("C", 2_800n, joined(text("RFB 003.008\n"), Uint8Array.of(1))),
    record("N", 3_000n, new Uint8Array()),
    record("C", 4_000n, joined(text("RFB 003.008\n"), Uint8Array.of(1, 1, 4, 1, 0, 0, 0, 0, 0, 0x61, 4, 0, 0, 0, 0, 0, 0, 0x61))),
);

describe("a recording", () => {
    it.each([1, 7, 1000])("of a line is read in pieces of %d bytes", (size) => {
        const tape = read(cast, LINE, size);
        expect(told(tape)).toEqual([
            [500, "said", "cafÃ©\r\n"],
            [1250, "typed", expect.any(String) as string],
            [2000, "lost", "9 bytes are missing here"],
            [2500, "anew", "the line was opened anew"],
            [3000, "note", "<b>else"],
        ]);
        expect(tape.typed(tape.count, 10)).toBe("ls⏎␃");
        expect(tape.marks.map(({ at, kind }) => [at, kind])).toEqual([[2000, "lost"], [2500, "anew"], [3000, "note"]]);
    });

    it("of a line tells the terminal's size, within bounds", () => {
        const size = (head: string): unknown => {
            const reader = new CastReader(new Tape());
            reader.take(text(`{"version":2,${head}}\n`));
            return reader.size;
        };
        expect(size('"width":100,"height":30')).toEqual({ columns: 100, lines: 30 });
        for (const wrong of ['"width":1e9,"height":-1', '"width":"80","height":null', '"width":1.5,"height":0']) {
            expect(size(wrong)).toEqual({ columns: 80, lines: 24 });
        }
    });

    it.each([1, 7, 1000])("of a screen is read in pieces of %d bytes", (size) => {
        const tape = read(frames, SCREEN, size);
        expect(told(tape)).toEqual([
            [1, "said", "RFB 003.008\n"],
            [1.5, "wish", "RFB 003.008\n"],
            [2.5, "lost", "256 bytes are missing here"],
            [3, "anew", "the screen was opened anew"],
            [4, "typed", "a"],
        ]);
        expect([tape.lastAnew(3), tape.lastAnew(4), tape.lastAnew(9)]).toEqual([undefined, 3, 3]);
    });

    it("that isn't intact is kept up to its last good link", () => {
        for (const [make, bytes, good] of [[cast, LINE, 1], [frames, SCREEN, 2]] as const) {
            const tape = read(make, bytes);
            const link = bytes.length - 1;
            tape.cut(link);
            expect(tape.count).toBe(good);
            expect([tape.marks.length, tape.typed(9, 9)]).toEqual([0, ""]);
            tape.cut(3);
            expect([tape.count, tape.duration]).toEqual([0, 0]);
        }
    });

    it("whose events are out of order goes on all the same, and never back", () => {
        const tape = read(cast, text(`${CAST}[2,"o","a"]\n[1,"o","b"]\n[3,"o","c"]\n`));
        expect(told(tape).map(([at]) => at)).toEqual([2000, 2000, 3000]);
        expect([tape.upTo(-1), tape.upTo(1999), tape.upTo(2000), tape.upTo(1e9)]).toEqual([0, 0, 2, 3]);
    });

    it("is kept up to a bound, and says that there is more", () => {
        const much = "x".repeat(1000);
        const tape = new Tape(10_000);
        read(cast, text(CAST + Array.from({ length: 50 }, (_, at) => `[${at},"o","${much}"]\n`).join("")), 4096, tape);
        expect([tape.isFull, tape.count]).toEqual([true, 9]);
        const links = new Tape(1000);
        read(cast, text(CAST + '[1,"h","0"]\n'.repeat(1000) + '[1,"o","x"]\n'), 4096, links);
        expect([links.isFull, links.count]).toEqual([true, 0]);
    });

    it.each([
        "",
        "[]",
        '{"version":1}',
        "no json",
        '{"version":2}\n{"a":1}',
        '{"version":2}\n[1,"o"]',
        '{"version":2}\n["1","o","x"]',
        '{"version":2}\n[-1,"o","x"]',
        '{"version":2}\n[1e300,"o","x"]',
        '{"version":2}\n[null,"o","x"]',
        '{"version":2}\n[1,"o",2]',
        '{"version":2}\n[1,"o","x"',
        `{"version":2}\n${"[".repeat(200_000)}`,
    ])("is none of a line: %.40s", (wrong) => {
        expect(() => read(cast, text(`${wrong}\n`))).toThrow(Unreadable);
    });

    it.each([
        [text('{"version":2}\n')],
        [text("RFB 003.008\n")],
        [joined(text(FRAMES), record("Z", 0n, new Uint8Array()))],
        [joined(text(FRAMES), record("S", 2n ** 64n - 1n, new Uint8Array()))],
        [joined(text(FRAMES), record("L", 0n, new Uint8Array(7)))],
        [joined(text(FRAMES), Uint8Array.of(0x53, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255))],
    ])("is none of a screen", (wrong) => {
        expect(() => read(frames, wrong)).toThrow(Unreadable);
    });

    it("without an end to its first line isn't waited for without bound", () => {
        for (const make of [cast, frames]) {
            expect(() => read(make, new Uint8Array(3 << 20).fill(0x20), 65_536)).toThrow(Unreadable);
        }
    });

    it("of any bytes is read or is refused, in order and within its bounds, however it is cut", () => {
        for (let seed = 1; seed <= 400; seed += 1) {
            const roll = random(seed);
            const isLine = seed % 2 === 0;
            const bytes = (isLine ? LINE : SCREEN).slice();
            for (let changes = 0; changes < 1 + roll() * 4; changes += 1) {
                bytes[Math.floor(roll() * bytes.length)] = Math.floor(roll() * 256);
            }
            const cut = bytes.slice(0, Math.floor(roll() * (bytes.length + 1)));
            const outcome = (size: number): unknown => {
                const tape = new Tape();
                let words = "";
                try {
                    read(isLine ? cast : frames, cut, size, tape);
                } catch (error) {
                    expect(error).toBeInstanceOf(Unreadable);
                    words = (error as Error).message;
                }
                const times = told(tape).map(([at]) => at);
                expect(times).toEqual([...times].sort((a, b) => a - b));
                return { words, told: told(tape) };
            };
            expect(outcome(1 + Math.floor(roll() * 9))).toEqual(outcome(Math.max(1, cut.length)));
        }
    });
});
