import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { poll } from "./poll";

let asked = 0;
let got: number[] = [];
let failed = 0;

function start(ask: () => Promise<number>): () => void {
    return poll(10_000, {
        ask: () => {
            asked += 1;
            return ask();
        },
        got: (answer) => got.push(answer),
        failed: () => (failed += 1),
    });
}

beforeEach(() => {
    vi.useFakeTimers();
    [asked, got, failed] = [0, [], 0];
});
afterEach(() => {
    vi.useRealTimers();
});

it("asks at once and again later, after a failure too", async () => {
    const stop = start(() => (asked === 2 ? Promise.reject(new Error("no")) : Promise.resolve(asked)));
    await vi.advanceTimersByTimeAsync(25_000);
    expect([asked, got, failed]).toEqual([3, [1, 3], 1]);
    stop();
});

it("asks for one answer at a time", async () => {
    const stop = start(() => new Promise((resolve) => setTimeout(() => { resolve(asked); }, 30_000)));
    await vi.advanceTimersByTimeAsync(39_000);
    expect([asked, got]).toEqual([1, [1]]);
    stop();
});

it("says nothing more when stopped, not even of what was asked before", async () => {
    const stop = start(() => new Promise((resolve) => setTimeout(() => { resolve(asked); }, 1000)));
    await vi.advanceTimersByTimeAsync(500);
    stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([asked, got, failed]).toEqual([1, [], 0]);
});
