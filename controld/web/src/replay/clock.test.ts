import { expect, it } from "vitest";

import { advance, length, stepped } from "./clock";
import { Tape } from "./tape";

function tape(...times: number[]): Tape {
    const made = new Tape();
    for (const at of times) {
        made.add(at, "said", Uint8Array.of(1));
    }
    return made;
}

const IDLE = 2000;

it("goes on with the time and stops at the end", () => {
    const moments = tape(100, 500, 900);
    expect(advance(moments, 0, 50, IDLE)).toBe(50);
    expect(advance(moments, 50, 60, IDLE)).toBe(110);
    expect(advance(moments, 110, 5000, IDLE)).toBe(900);
    expect(advance(moments, 900, 16, IDLE)).toBe(900);
    expect(advance(tape(), 0, 16, IDLE)).toBe(0);
});

it("passes over what is left of a silence, where that is wanted", () => {
    const moments = tape(1000, 60_000, 60_500);
    expect(advance(moments, 1000, 1999, IDLE)).toBe(2999);
    expect(advance(moments, 2999, 10, IDLE)).toBe(60_009);
    expect(advance(moments, 2999, 10, undefined)).toBe(3009);
    // Gone to in the midst of it.
    expect(advance(moments, 30_000, 10, IDLE)).toBe(60_010);
    // At its beginning too, and over several at once.
    expect(advance(tape(10_000, 20_000, 30_000), 0, 6100, IDLE)).toBe(30_000);
    expect(advance(tape(10_000, 20_000, 30_000), 0, 4100, IDLE)).toBe(20_100);
});

it("is in the same place however the time is cut, and never goes back", () => {
    for (let seed = 1; seed < 200; seed += 1) {
        let state = seed;
        const roll = (most: number): number => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % most;
        let at = 0;
        const moments = tape(...Array.from({ length: 30 }, () => (at += roll(8) === 0 ? roll(50_000) : roll(800))));
        const all = roll(60_000);
        let place = 0;
        for (let left = all; left > 0; ) {
            const step = Math.min(left, 1 + roll(300));
            const next = advance(moments, place, step, IDLE);
            expect(next).toBeGreaterThanOrEqual(place);
            [place, left] = [next, left - step];
        }
        expect(place).toBeCloseTo(advance(moments, 0, all, IDLE), 6);
    }
});

it("has speeds with a slowest and a fastest", () => {
    expect([stepped(1, 1), stepped(1, -1), stepped(0.5, -1), stepped(16, 1)]).toEqual([2, 0.5, 0.5, 16]);
});

it("writes how far it is", () => {
    expect([length(0), length(62_999), length(3_602_000)]).toEqual(["0:00", "1:02", "1:00:02"]);
    expect([length(0, true), length(2399, true)]).toEqual(["0:00.0", "0:02.3"]);
});
