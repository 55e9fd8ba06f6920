// The fleet as the page shows it: one stream, taken in as it comes and shown at most once per frame.
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { EventKind, type WatchResponse } from "../gen/horcrux/v1/watch_service_pb";
import { watch } from "../rpc/clients";
import { type Following, follow } from "../rpc/follow";
import { fetchRecent } from "../rpc/recent";
import { EMPTY, type Fleet, apply } from "./fleet";
import { NO_TRACE, TRACE_SECONDS, type Trace, extend, prepend } from "./trace";

export type Connection = "connecting" | "live" | "reconnecting" | "behind" | "denied";

/** What is drawn: consistent in itself. */
export interface Picture {
    readonly fleet: Fleet;
    /** CPU usage by node. */
    readonly traces: ReadonlyMap<string, Trace>;
    readonly connection: Connection;
    /** Why it is not live. */
    readonly trouble: string;
    /** A steady clock, as in `Fleet.told`. */
    readonly now: number;
}

/** Between two pictures. */
const LEAST_MS = 200;
const QUIET_MS = 1200;

/** When what a node took while it was away is fetched, after it came back: most of it comes within seconds. */
const BACKFILLED_MS = [5_000, 30_000];

const TRACED = Metric.NODE_CPU_USAGE;

export class Live {
    picture: Picture = $state.raw({ fleet: EMPTY, traces: new Map(), connection: "connecting", trouble: "", now: 0 });

    #fleet: Fleet = EMPTY;
    #traces = new Map<string, Trace>();
    #connected = false;
    #denied = false;
    #everLive = false;
    #trouble = "";
    #frame: number | undefined;
    #pause: ReturnType<typeof setTimeout> | undefined;
    #following: Following | undefined;
    #fetching = new AbortController();
    #stop: (() => void)[] = [];

    start(signedOut: () => void): void {
        const following = follow({
            open: (signal) => watch.watch({}, { signal }),
            message: (message) => {
                this.#take(message);
            },
            lost: (reason) => {
                this.#connected = false;
                this.#trouble = reason;
                this.#draw();
            },
            denied: (reason) => {
                this.#forget();
                this.#denied = true;
                this.#trouble = reason;
                this.#draw();
            },
            signedOut,
        });
        this.#following = following;
        // Ages grow while nothing comes.
        const clock = setInterval(() => {
            if (performance.now() - this.picture.now > QUIET_MS) {
                this.#draw();
            }
        }, 500);
        const hurry = (): void => {
            if (document.visibilityState === "visible" && !this.#denied) {
                following.hurry();
            }
        };
        window.addEventListener("online", hurry);
        document.addEventListener("visibilitychange", hurry);
        this.#stop = [
            () => {
                clearInterval(clock);
            },
            () => {
                window.removeEventListener("online", hurry);
            },
            () => {
                document.removeEventListener("visibilitychange", hurry);
            },
        ];
    }

    stop(): void {
        this.#following?.stop();
        this.#fetching.abort();
        this.#stop.forEach((end) => {
            end();
        });
        clearTimeout(this.#pause);
        if (this.#frame !== undefined) {
            cancelAnimationFrame(this.#frame);
        }
    }

    /** Asks again for what was refused. */
    again(): void {
        this.#denied = false;
        this.#draw();
        this.#following?.hurry();
    }

    /** What was seen is no longer the caller's to see. */
    #forget(): void {
        this.#connected = false;
        this.#everLive = false;
        this.#fetching.abort();
        this.#traces.clear();
        // The controller hasn't become another.
        this.#fleet = { ...EMPTY, version: this.#fleet.version };
    }

    #take(message: WatchResponse): void {
        const before = this.#fleet;
        const after = apply(before, message, performance.now());
        this.#fleet = after;
        this.#connected = true;
        for (const thing of after.things.values()) {
            if (thing.kind === "node" && before.things.get(thing.slot) !== thing) {
                const name = thing.object.name;
                this.#traces.set(name, extend(this.#traces.get(name) ?? NO_TRACE, thing, TRACED));
            }
        }
        if (after.settled && message.message.case === "snapshot") {
            this.#everLive = true;
            this.#fetchPast();
        }
        this.#fetchBackfilled(message);
        this.#draw();
    }

    /** At each snapshot: what was missed while away is fetched too. */
    #fetchPast(): void {
        this.#fetching.abort();
        this.#fetching = new AbortController();
        const names = [...this.#fleet.things.values()].filter((t) => t.kind === "node").map((t) => t.object.name);
        for (const name of this.#traces.keys()) {
            if (!names.includes(name)) {
                this.#traces.delete(name);
            }
        }
        this.#fetchTraces(names);
    }

    #fetchTraces(names: readonly string[]): void {
        void fetchRecent(names, TRACED, TRACE_SECONDS, this.#fetching.signal, (name, series, lost) => {
            this.#traces.set(name, prepend(series, lost, this.#traces.get(name) ?? NO_TRACE));
            this.#draw();
        });
    }

    /** Nodes that were away bring what they took meanwhile, beside what they take now. */
    #fetchBackfilled(message: WatchResponse): void {
        if (message.message.case !== "changes") {
            return;
        }
        const back = message.message.value.events.filter((event) => event.kind === EventKind.NODE_CONNECTED);
        const names = back.map((event) => event.resource);
        const { signal } = this.#fetching;
        for (const wait of names.length > 0 ? BACKFILLED_MS : []) {
            setTimeout(() => {
                if (!signal.aborted) {
                    this.#fetchTraces(names);
                }
            }, wait);
        }
    }

    /** At the next frame, and not again too soon. */
    #draw(): void {
        const wait = this.picture.now + LEAST_MS - performance.now();
        this.#pause ??= setTimeout(() => {
            this.#pause = undefined;
            this.#drawFrame();
        }, Math.max(0, wait));
    }

    #drawFrame(): void {
        this.#frame ??= requestAnimationFrame(() => {
            this.#frame = undefined;
            this.picture = {
                fleet: this.#fleet,
                traces: new Map(this.#traces),
                connection: this.#connection(),
                trouble: this.#connected ? "" : this.#trouble,
                now: performance.now(),
            };
        });
    }

    #connection(): Connection {
        if (this.#denied) {
            return "denied";
        }
        if (!this.#connected || !this.#fleet.settled) {
            return this.#everLive ? "reconnecting" : "connecting";
        }
        return this.#fleet.behind ? "behind" : "live";
    }
}
