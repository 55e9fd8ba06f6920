import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";

import { RecentSeriesSchema, RecordedGapSchema } from "../gen/horcrux/v1/watch_service_pb";
import { NO_TRACE, type Trace, lines, lostSpans, prepend } from "./trace";

const every = (times: readonly number[], values: readonly number[], gapMs = 2500): Trace => ({
    times,
    values,
    gapMs,
    lost: [],
});

describe("a trace's lines", () => {
    it("are broken where times are too far apart", () => {
        const drawn = lines(every([1000, 2000, 6000, 7000], [1, 2, 3, 4]), 10_000, 100, 10);
        expect(drawn.map((line) => line.map(({ y }) => y))).toEqual([[1, 2], [3, 4]]);
    });

    it("are broken where a value was measured as absent", () => {
        const drawn = lines(every([1000, 2000, 3000], [1, NaN, 3]), 10_000, 100, 10);
        expect(drawn.map((line) => line.map(({ y }) => y))).toEqual([[1], [3]]);
    });

    it("stay as they are across what is exactly the gap", () => {
        expect(lines(every([1000, 3500], [1, 2]), 10_000, 100, 10)).toHaveLength(1);
    });

    it("begin and end with the window", () => {
        const drawn = lines(every([0, 9000, 10_000, 10_500], [1, 2, 3, 4]), 10_000, 100, 5);
        expect(drawn).toEqual([[{ x: 0.8, y: 2 }, { x: 1, y: 3 }]]);
    });

    it("keep the highest of each bucket", () => {
        const drawn = lines(every([1000, 1100, 1200, 6000], [1, 9, 2, 4], 9000), 10_000, 10, 10);
        expect(drawn.map((line) => line.map(({ y }) => y))).toEqual([[9, 4]]);
    });

    it("are none when nothing is known", () => {
        expect(lines(NO_TRACE, 10_000, 100)).toEqual([]);
    });
});

describe("the past", () => {
    const past = create(RecentSeriesSchema, { unixMs: [1000n, 2000n], values: [10, 20], gapMs: 3000 });

    it("comes before what came live, and nothing is there twice", () => {
        expect(prepend(past, [], every([2000, 3000], [21, 30], 1))).toEqual(every([1000, 2000, 3000], [10, 20, 30], 3000));
    });

    it("is all there is when nothing came live", () => {
        expect(prepend(past, [], NO_TRACE).times).toEqual([1000, 2000]);
    });
});

describe("what is lost", () => {
    const gap = (from: number, until: number) =>
        create(RecordedGapSchema, { fromUnixMs: BigInt(from), untilUnixMs: BigInt(until), records: 3n, reason: "no room" });
    const trace: Trace = { ...NO_TRACE, lost: [gap(-9000, -8000), gap(-5000, 2000), gap(5000, 5000), gap(11_000, 12_000)] };

    it("is shown where it is within the window, with its reason", () => {
        const words = "3 readings and events lost: no room";
        expect(lostSpans(trace, 10_000, 10)).toEqual([
            { from: 0, until: 0.2, words },
            { from: 0.5, until: 0.5, words },
        ]);
    });
});
