// What each metric is, from the contract.

import { getOption } from "@bufbuild/protobuf";
import { Metric, MetricSchema, metric as metricOption, type MetricInfo } from "../gen/horcrux/v1/metrics_pb";

const infos = new Map<Metric, MetricInfo>(
  MetricSchema.values.filter((value) => value.number !== 0).map((value) => [value.number, getOption(value, metricOption)]),
);

export function info(metric: Metric): MetricInfo | undefined {
  return infos.get(metric);
}

export function nameOf(metric: Metric): string {
  return infos.get(metric)?.name ?? "";
}
