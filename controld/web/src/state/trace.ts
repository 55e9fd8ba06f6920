// One metric over the last minutes, as measured: what is not known is a gap, never a bridge and never zero.
import type { Metric } from "../gen/horcrux/v1/metrics_pb";
import type { RecentSeries, RecordedGap } from "../gen/horcrux/v1/watch_service_pb";
import { type NodeThing, value } from "./fleet";

export interface Trace {
    /** Ascending, by the node's clock. */
    readonly times: readonly number[];
    /** One for each time; NaN: measured, and absent. */
    readonly values: readonly number[];
    /** Where two times are further apart, nothing is known in between. */
    readonly gapMs: number;
    /** What was taken and is lost. */
    readonly lost: readonly RecordedGap[];
}

export interface Span {
    /** From 0 to 1. */
    readonly from: number;
    readonly until: number;
    readonly words: string;
}

export interface Point {
    readonly x: number;
    readonly y: number;
}

export const TRACE_SECONDS = 600;

/** Until the controller says better. */
const USUAL_GAP_MS = 5_000;

export const NO_TRACE: Trace = { times: [], values: [], gapMs: USUAL_GAP_MS, lost: [] };

/** The past, with what came live since. */
export function prepend(series: RecentSeries, lost: readonly RecordedGap[], live: Trace): Trace {
    const times = series.unixMs.map(Number);
    const last = times.at(-1) ?? -Infinity;
    const from = live.times.findIndex((time) => time > last);
    const tail = from === -1 ? live.times.length : from;
    return {
        times: [...times, ...live.times.slice(tail)],
        values: [...series.values, ...live.values.slice(tail)],
        gapMs: series.gapMs > 0 ? series.gapMs : live.gapMs,
        lost,
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
        lost: trace.lost,
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

/** Where something is known to be lost between `end - seconds` and `end`. */
export function lostSpans(trace: Trace, end: number, seconds = TRACE_SECONDS): readonly Span[] {
    const start = end - seconds * 1000;
    const place = (time: bigint): number => Math.max(0, Math.min(1, (Number(time) - start) / (end - start)));
    return trace.lost
        .filter((gap) => Number(gap.untilUnixMs) >= start && Number(gap.fromUnixMs) <= end)
        .map((gap) => ({
            from: place(gap.fromUnixMs),
            until: place(gap.untilUnixMs),
            words: `${gap.records} readings and events lost: ${gap.reason}`,
        }));
}
