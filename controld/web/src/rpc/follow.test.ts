import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { type WatchResponse, WatchResponseSchema } from "../gen/horcrux/v1/watch_service_pb";
import { type Follower, type Following, backoff, follow } from "./follow";

type Script = (signal: AbortSignal) => AsyncIterable<WatchResponse>;

const beat = create(WatchResponseSchema, { message: { case: "heartbeat", value: {} } });

function silence(signal: AbortSignal): Promise<never> {
    return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
            reject(new ConnectError("aborted", Code.Canceled));
        });
    });
}

async function* beats(signal: AbortSignal, count: number, everyMs: number): AsyncIterable<WatchResponse> {
    for (let sent = 0; sent < count; sent += 1) {
        yield beat;
        await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
    await silence(signal);
}

// eslint-disable-next-line @typescript-eslint/require-await
async function* fails(code: Code): AsyncIterable<WatchResponse> {
    throw new ConnectError("no", code);
}

let opened = 0;
let heard = 0;
let losses: string[] = [];
let refusals: string[] = [];
let out = 0;
let following: Following | undefined;

function start(...scripts: readonly Script[]): void {
    const follower: Follower = {
        open: (signal) => {
            const script = scripts[Math.min(opened, scripts.length - 1)];
            opened += 1;
            if (script === undefined) {
                throw new Error("no script");
            }
            return script(signal);
        },
        message: () => (heard += 1),
        lost: (reason) => losses.push(reason),
        denied: (reason) => refusals.push(reason),
        signedOut: () => (out += 1),
    };
    following = follow(follower, () => 1);
}

beforeEach(() => {
    vi.useFakeTimers();
    [opened, heard, losses, refusals, out] = [0, 0, [], [], 0];
});
afterEach(() => {
    following?.stop();
    vi.useRealTimers();
});

it("keeps a stream on which something comes", async () => {
    start((signal) => beats(signal, 10, 5000));
    await vi.advanceTimersByTimeAsync(45_000);
    expect([opened, heard, losses]).toEqual([1, 10, []]);
});

it("opens another when the stream falls silent", async () => {
    start((signal) => beats(signal, 1, 0));
    await vi.advanceTimersByTimeAsync(11_900);
    expect(losses).toEqual([]);
    await vi.advanceTimersByTimeAsync(200);
    expect(losses).toEqual(["the controller fell silent"]);
    await vi.advanceTimersByTimeAsync(600);
    expect(opened).toBe(2);
});

it("waits longer with each failure", async () => {
    start(() => fails(Code.Unavailable));
    await vi.advanceTimersByTimeAsync(1000);
    expect(opened).toBe(2);
    await vi.advanceTimersByTimeAsync(2000);
    expect(opened).toBe(3);
    await vi.advanceTimersByTimeAsync(3900);
    expect(opened).toBe(3);
    await vi.advanceTimersByTimeAsync(200);
    expect(opened).toBe(4);
});

it("doesn't wait when told to hurry", async () => {
    start(() => fails(Code.Unavailable));
    await vi.advanceTimersByTimeAsync(10);
    following?.hurry();
    await vi.advanceTimersByTimeAsync(10);
    expect(opened).toBe(2);
});

it("ends with the session", async () => {
    start(() => fails(Code.Unauthenticated));
    await vi.advanceTimersByTimeAsync(60_000);
    expect([opened, out]).toEqual([1, 1]);
});

it("doesn't ask again for what is refused, unless told to", async () => {
    start(
        () => fails(Code.PermissionDenied),
        (signal) => beats(signal, 100, 1000),
    );
    await vi.advanceTimersByTimeAsync(600_000);
    expect([opened, refusals, losses, out]).toEqual([1, ["no"], [], 0]);
    following?.hurry();
    await vi.advanceTimersByTimeAsync(2500);
    expect([opened, heard]).toEqual([2, 3]);
});

it("ends when stopped while it waits to be told", async () => {
    start(() => fails(Code.PermissionDenied));
    await vi.advanceTimersByTimeAsync(10);
    following?.stop();
    await vi.advanceTimersByTimeAsync(10);
    expect(opened).toBe(1);
});

it("ends when stopped", async () => {
    start((signal) => beats(signal, 100, 1000));
    await vi.advanceTimersByTimeAsync(3000);
    following?.stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([opened, losses]).toEqual([1, []]);
});

it("spreads its pauses and bounds them", () => {
    expect(backoff(0, 0)).toBe(250);
    expect(backoff(0, 1)).toBe(500);
    expect(backoff(40, 1)).toBe(30_000);
});
