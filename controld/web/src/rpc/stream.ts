// The one Watch stream of this page: kept open, and opened again when it breaks or falls silent.

import type { WatchResponse } from "../gen/horcrux/v1/watch_service_pb";
import { explained, isSignedOut, type Connection } from "./session";

export type Link =
  | { state: "connecting" }
  | { state: "live" }
  // It fell behind, and a new snapshot is on its way.
  | { state: "behind"; missedTicks: number; missedEvents: number }
  | { state: "reconnecting"; why: string; retryAt: number };

export type Listener = {
  message(message: WatchResponse): void;
  link(link: Link): void;
  signedOut(): void;
};

// Something arrives every 5 s: after this long nothing will.
const SILENCE_MS = 12_000;
const FIRST_RETRY_MS = 500;
const MAX_RETRY_MS = 30_000;

// Full jitter, so that a thousand pages that lost the same controller don't come back at once.
export function retryDelay(failures: number, draw: number): number {
  return Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failures, 10)) * draw;
}

// Runs until `stop`.
export async function follow(connection: Connection, listener: Listener, stop: AbortSignal): Promise<void> {
  let failures = 0;
  while (!stop.aborted) {
    listener.link({ state: "connecting" });
    const attempt = new AbortController();
    const end = () => attempt.abort();
    stop.addEventListener("abort", end);
    let why = "The controller ended the stream.";
    let silent = false;
    const fall = () => {
      silent = true;
      attempt.abort();
    };
    let deadline = setTimeout(fall, SILENCE_MS);
    try {
      for await (const message of connection.watch.watch({}, { signal: attempt.signal })) {
        clearTimeout(deadline);
        deadline = setTimeout(fall, SILENCE_MS);
        failures = 0;
        listener.message(message);
        if (message.message.case === "gap") {
          const { missedTicks, missedEvents } = message.message.value;
          const missed = { missedTicks: Number(missedTicks), missedEvents: Number(missedEvents) };
          listener.link({ state: "behind", ...missed });
        } else if (message.message.case === "snapshot" && message.message.value.complete) {
          listener.link({ state: "live" });
        }
      }
    } catch (error) {
      if (isSignedOut(error)) {
        listener.signedOut();
        return;
      }
      why = silent ? "The controller fell silent." : explained(error);
    } finally {
      clearTimeout(deadline);
      stop.removeEventListener("abort", end);
    }
    if (stop.aborted) return;
    const delay = retryDelay(failures, Math.random());
    failures += 1;
    listener.link({ state: "reconnecting", why, retryAt: Date.now() + delay });
    await pause(delay, stop);
  }
}

// Ends early when the machine is online again, the page is looked at again, or it is to stop.
function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener("online", done);
      document.removeEventListener("visibilitychange", seen);
      stop.removeEventListener("abort", done);
      resolve();
    };
    const seen = () => {
      if (document.visibilityState === "visible") done();
    };
    const timer = setTimeout(done, ms);
    window.addEventListener("online", done);
    document.addEventListener("visibilitychange", seen);
    stop.addEventListener("abort", done);
  });
}
