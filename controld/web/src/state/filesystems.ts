// The file systems of a node, from its values with their instances.
import { Metric, type MetricValue } from "../gen/horcrux/v1/metrics_pb";
import type { Reading } from "./reading";

export interface Filesystem {
    readonly mountpoint: string;
    readonly readOnly: boolean;
    readonly size: Reading;
    readonly available: Reading;
    readonly usage: Reading;
}

/** What they are made of. */
const PARTS: ReadonlySet<Metric> = new Set([
    Metric.NODE_FILESYSTEM_SIZE,
    Metric.NODE_FILESYSTEM_AVAILABLE,
    Metric.NODE_FILESYSTEM_USAGE,
    Metric.NODE_FILESYSTEM_READ_ONLY,
]);

/** By mount point. */
export function filesystems(values: readonly MetricValue[]): readonly Filesystem[] {
    const found = new Map<string, Map<Metric, MetricValue>>();
    for (const value of values.filter(({ metric, instance }) => instance !== "" && PARTS.has(metric))) {
        const parts = found.get(value.instance) ?? new Map<Metric, MetricValue>();
        found.set(value.instance, parts.set(value.metric, value));
    }
    return [...found]
        .map(([mountpoint, parts]) => ({
            mountpoint,
            readOnly: parts.get(Metric.NODE_FILESYSTEM_READ_ONLY)?.value === 1,
            size: reading(parts, Metric.NODE_FILESYSTEM_SIZE),
            available: reading(parts, Metric.NODE_FILESYSTEM_AVAILABLE),
            usage: reading(parts, Metric.NODE_FILESYSTEM_USAGE),
        }))
        .sort((one, other) => (one.mountpoint < other.mountpoint ? -1 : 1));
}

function reading(parts: ReadonlyMap<Metric, MetricValue>, metric: Metric): Reading {
    const told = parts.get(metric);
    return told?.value === undefined || !Number.isFinite(told.value)
        ? { metric, absent: told?.absentReason ? told.absentReason : "the node does not tell it" }
        : { metric, value: told.value };
}
