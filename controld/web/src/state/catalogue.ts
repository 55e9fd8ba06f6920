// The metric catalogue, read from the contract's own options.
import { getOption } from "@bufbuild/protobuf";

import { Metric, type MetricInfo, MetricSchema, metric as option } from "../gen/horcrux/v1/metrics_pb";

const all: ReadonlyMap<Metric, MetricInfo> = new Map(
    Object.values(Metric)
        .filter((metric) => typeof metric === "number" && metric !== Metric.UNSPECIFIED)
        .map((metric) => [metric, getOption(MetricSchema.value[metric], option)]),
);

export function info(metric: Metric): MetricInfo {
    const found = all.get(metric);
    if (found === undefined) {
        throw new Error(`metric ${metric} is not in the catalogue`);
    }
    return found;
}

export function metrics(): Iterable<[Metric, MetricInfo]> {
    return all;
}
