// One value of a thing, or why there is none.
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import type { Absence } from "../gen/horcrux/v1/inventory_pb";
import { info } from "./catalogue";
import { type Thing, value } from "./fleet";
import { whyOff } from "./off";

export type Reading =
    | { readonly metric: Metric; readonly value: number }
    | { readonly metric: Metric; readonly value?: undefined; readonly absent: string };

/** Whether a limit's absence means that there is none: what it limits was read, and no reason was told. */
export function isUnlimited(thing: Thing, limit: Metric, limited: Metric): boolean {
    return (
        value(thing, limit) === undefined && value(thing, limited) !== undefined && told(thing, [limit]) === undefined
    );
}

/** What the controller derives these from, where the catalogue's `rate_of` doesn't say it. */
const MADE_FROM: ReadonlyMap<Metric, readonly Metric[]> = new Map([
    [Metric.VM_CPU_USAGE, [Metric.VM_CPU_TIME, Metric.VM_VCPUS]],
    [Metric.VM_MEMORY_USAGE, [Metric.VM_MEMORY_USABLE, Metric.VM_MEMORY_UNUSED, Metric.VM_MEMORY_AVAILABLE]],
    [Metric.CONTAINER_CPU_USAGE, [Metric.CONTAINER_CPU_TIME]],
    [Metric.CONTAINER_MEMORY_USAGE, [Metric.CONTAINER_MEMORY_WORKING_SET]],
]);

/** Only the number, for sorting and adding. */
export function amount(thing: Thing, metric: Metric): number | undefined {
    return whyOff(thing) === undefined ? value(thing, metric) : undefined;
}

export function reading(thing: Thing, metric: Metric): Reading {
    const found = amount(thing, metric);
    return found === undefined ? { metric, absent: why(thing, metric) } : { metric, value: found };
}

/** The first that is there; if none is, the first. */
export function firstReading(thing: Thing, metric: Metric, ...others: readonly Metric[]): Reading {
    const present = [metric, ...others].find((one) => amount(thing, one) !== undefined);
    return reading(thing, present ?? metric);
}

function why(thing: Thing, metric: Metric): string {
    const off = whyOff(thing);
    if (off !== undefined) {
        return off;
    }
    const { rateOf } = info(metric);
    const inputs = [metric, ...(rateOf === Metric.UNSPECIFIED ? [] : [rateOf]), ...(MADE_FROM.get(metric) ?? [])];
    const reason = told(thing, inputs)?.reason ?? "";
    if (reason !== "") {
        return reason;
    }
    if (thing.sampledMs === undefined) {
        return "no sample has come yet";
    }
    if (rateOf !== Metric.UNSPECIFIED || MADE_FROM.has(metric)) {
        return "needs two samples in a row, or its source does not tell it";
    }
    return "not in the newest sample";
}

function told(thing: Thing, metrics: readonly Metric[]): Absence | undefined {
    return absences(thing).find((absence) => absence.instance === "" && metrics.includes(absence.metric));
}

function absences(thing: Thing): readonly Absence[] {
    return thing.kind === "node" ? [] : (thing.object.facts?.absences ?? []);
}
