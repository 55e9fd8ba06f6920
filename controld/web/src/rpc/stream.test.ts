import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WatchResponseSchema, type WatchResponse } from "../gen/horcrux/v1/watch_service_pb";
import type { Connection } from "./session";
import { follow, retryDelay, type Link } from "./stream";

type Attempt = (signal: AbortSignal) => AsyncIterable<WatchResponse>;

const ready = create(WatchResponseSchema, { message: { case: "snapshot", value: { complete: true } } });

function silent(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => signal.addEventListener("abort", () => fail(new ConnectError("gone", Code.Canceled))));
}

// Plays one attempt after the other and gathers what the page is told.
function play(...attempts: Attempt[]) {
  const stop = new AbortController();
  const links: Link[] = [];
  let signedOut = false;
  const watch = (_: object, { signal }: { signal: AbortSignal }) => (attempts.shift() ?? silentOnly)(signal);
  const listener = {
    message: () => undefined,
    link: (link: Link) => links.push(link),
    signedOut: () => (signedOut = true),
  };
  const done = follow({ watch: { watch } } as unknown as Connection, listener, stop.signal);
  return { links, stop, done, isSignedOut: () => signedOut };
}

async function* silentOnly(signal: AbortSignal): AsyncIterable<WatchResponse> {
  yield await silent(signal);
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const states = (links: Link[]) => links.map((link) => link.state);

test("a stream that ends is opened again", async () => {
  const played = play(
    async function* () {
      yield ready;
    },
    async function* (signal) {
      yield ready;
      await silent(signal);
    },
  );
  await vi.advanceTimersByTimeAsync(501);
  expect(states(played.links)).toEqual(["connecting", "live", "reconnecting", "connecting", "live"]);
  played.stop.abort();
  await played.done;
});

test("a stream that falls silent is given up, and the page is told", async () => {
  const played = play(async function* (signal) {
    yield ready;
    await silent(signal);
  });
  await vi.advanceTimersByTimeAsync(11_999);
  expect(states(played.links)).toEqual(["connecting", "live"]);
  await vi.advanceTimersByTimeAsync(2);
  expect(played.links[2]).toMatchObject({ state: "reconnecting", why: "The controller fell silent." });
  played.stop.abort();
  await played.done;
});

test("a session that ended is not tried again", async () => {
  const played = play(async function* () {
    yield ready;
    throw new ConnectError("no session", Code.Unauthenticated);
  });
  await played.done;
  expect(played.isSignedOut()).toBe(true);
});

test("a gap is told until the new snapshot is whole", async () => {
  const gap = create(WatchResponseSchema, { message: { case: "gap", value: { missedTicks: 4n, missedEvents: 1n } } });
  const played = play(async function* (signal) {
    yield ready;
    yield gap;
    yield ready;
    await silent(signal);
  });
  await vi.advanceTimersByTimeAsync(1);
  expect(played.links).toEqual([
    { state: "connecting" },
    { state: "live" },
    { state: "behind", missedTicks: 4, missedEvents: 1 },
    { state: "live" },
  ]);
  played.stop.abort();
  await played.done;
});

test("delays grow to half a minute, and jitter reaches down to nothing", () => {
  expect([0, 1, 2, 20].map((failures) => retryDelay(failures, 1))).toEqual([500, 1000, 2000, 30_000]);
  expect(retryDelay(20, 0)).toBe(0);
});
