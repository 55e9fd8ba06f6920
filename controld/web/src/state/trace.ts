// One metric over the last minutes, as measured: what is not known is a gap, never a bridge and never zero.
import type { Metric } from "../gen/horcrux/v1/metrics_pb";
import type { RecentSeries } from "../gen/horcrux/v1/watch_service_pb";
import { type NodeThing, value } from "./fleet";

export interface Trace {
    /** Ascending, by the node's clock. */
    readonly times: readonly number[];
    /** One for each time; NaN: measured, and absent. */
    readonly values: readonly number[];
    /** Where two times are further apart, nothing is known in between. */
    readonly gapMs: number;
}

export interface Point {
    readonly x: number;
    readonly y: number;
}

export const TRACE_SECONDS = 600;

/** Until the controller says better. */
const USUAL_GAP_MS = 5_000;

export const NO_TRACE: Trace = { times: [], values: [], gapMs: USUAL_GAP_MS };

/** The past, with what came live since. */
export function prepend(series: RecentSeries, live: Trace): Trace {
    const times = series.unixMs.map(Number);
    const last = times.at(-1) ?? -Infinity;
    const from = live.times.findIndex((time) => time > last);
    const tail = from === -1 ? live.times.length : from;
    return {
        times: [...times, ...live.times.slice(tail)],
        values: [...series.values, ...live.values.slice(tail)],
        gapMs: series.gapMs > 0 ? series.gapMs : live.gapMs,
    };
}

/** The trace with the node's newest value, if that is new. */
export function extend(trace: Trace, thing: NodeThing, metric: Metric): Trace {
    const time = thing.sampledMs;
    if (time === undefined || time <= (trace.times.at(-1) ?? -Infinity)) {
        return trace;
    }
    const oldest = time - TRACE_SECONDS * 1000;
    const first = trace.times.findIndex((one) => one >= oldest);
    const from = first === -1 ? trace.times.length : first;
    return {
        times: [...trace.times.slice(from), time],
        values: [...trace.values.slice(from), value(thing, metric) ?? NaN],
        gapMs: trace.gapMs,
    };
}

/**
 * The lines to draw between `end - seconds` and `end`: x from 0 to 1, y as measured, at most one point for each of
 * `buckets`, the highest in it.
 */
export function lines(trace: Trace, end: number, buckets: number, seconds = TRACE_SECONDS): readonly (readonly Point[])[] {
    const span = seconds * 1000;
    const start = end - span;
    const drawn: Point[][] = [];
    let line: Point[] | undefined;
    let before = -Infinity;
    let bucket = -1;
    trace.times.forEach((time, place) => {
        const y = trace.values[place] ?? NaN;
        if (time < start || time > end) {
            return;
        }
        if (Number.isNaN(y)) {
            line = undefined;
            return;
        }
        const x = (time - start) / span;
        const mine = Math.min(buckets - 1, Math.floor(x * buckets));
        if (line === undefined || time - before > trace.gapMs) {
            line = [{ x, y }];
            drawn.push(line);
        } else if (mine !== bucket) {
            line.push({ x, y });
        } else {
            const last = line.at(-1);
            if (last !== undefined && y > last.y) {
                line[line.length - 1] = { x: last.x, y };
            }
        }
        before = time;
        bucket = mine;
    });
    return drawn;
}
