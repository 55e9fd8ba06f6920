// Keeps one Watch stream open: opens it again when it ends, breaks or falls silent. Where it was refused, only when told
// to: rights come back because people act, and each refusal is on the audit log.
import { Code, ConnectError } from "@connectrpc/connect";

import type { WatchResponse } from "../gen/horcrux/v1/watch_service_pb";

/** The controller says something at least every 5 s. */
const SILENCE_MS = 12_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;

export interface Follower {
    open(signal: AbortSignal): AsyncIterable<WatchResponse>;
    message(message: WatchResponse): void;
    /** The stream is gone; another follows. */
    lost(reason: string): void;
    /** The caller may not have it. Another follows when told to hurry. */
    denied(reason: string): void;
    /** The session is over: no other follows. */
    signedOut(): void;
}

export interface Following {
    stop(): void;
    /** Doesn't wait for the pause to end, for instance because the network is back. */
    hurry(): void;
}

export function follow(follower: Follower, random: () => number = Math.random): Following {
    const stopped = new AbortController();
    const isStopped = (): boolean => stopped.signal.aborted;
    let wake = (): void => undefined;

    /** Without a length it lasts until it is ended. */
    const pause = (ms?: number): Promise<void> =>
        new Promise((resolve) => {
            const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
            wake = () => {
                clearTimeout(timer);
                resolve();
            };
        });

    const run = async (): Promise<void> => {
        let failures = 0;
        for (;;) {
            const outcome = await once(follower, stopped.signal);
            if (isStopped()) {
                return;
            }
            switch (outcome.end) {
                case "over":
                    follower.signedOut();
                    return;
                case "denied":
                    failures = 0;
                    follower.denied(outcome.reason);
                    await pause();
                    break;
                case "lost":
                    failures = outcome.heard ? 0 : failures + 1;
                    follower.lost(outcome.reason);
                    await pause(backoff(failures, random()));
                    break;
            }
            // `stop` ends the pause too.
            if (isStopped()) {
                return;
            }
        }
    };
    void run();

    return {
        stop: () => {
            stopped.abort();
            wake();
        },
        hurry: () => {
            wake();
        },
    };
}

/** Grows with each failure, and is spread so that the pages of many people don't come back at once. */
export function backoff(failures: number, random: number): number {
    const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
    return longest * (0.5 + random / 2);
}

interface Outcome {
    heard: boolean;
    /** `over`: the controller no longer knows the session. */
    end: "over" | "denied" | "lost";
    reason: string;
}

const END: ReadonlyMap<Code, Outcome["end"]> = new Map([
    [Code.Unauthenticated, "over"],
    [Code.PermissionDenied, "denied"],
]);

async function once(follower: Follower, stopped: AbortSignal): Promise<Outcome> {
    const silent = new AbortController();
    const alarm = (): ReturnType<typeof setTimeout> =>
        setTimeout(() => {
            silent.abort();
        }, SILENCE_MS);
    let timer = alarm();
    let heard = false;
    try {
        for await (const message of follower.open(AbortSignal.any([stopped, silent.signal]))) {
            clearTimeout(timer);
            timer = alarm();
            heard = true;
            follower.message(message);
        }
        return { heard, end: "lost", reason: "the controller ended the stream" };
    } catch (error) {
        const failure = ConnectError.from(error);
        const reason = silent.signal.aborted ? "the controller fell silent" : failure.rawMessage;
        return { heard, end: END.get(failure.code) ?? "lost", reason };
    } finally {
        clearTimeout(timer);
    }
}
