import { expect, it } from "vitest";

import { EntityKind, Metric, MetricSchema, Unit } from "../gen/horcrux/v1/metrics_pb";
import { info, metrics } from "./catalogue";

it("holds every metric of the contract, with the options it was given there", () => {
    expect([...metrics()]).toHaveLength(MetricSchema.values.length - 1);
    expect(info(Metric.NODE_CPU_USAGE)).toMatchObject({ unit: Unit.PERCENT, entity: EntityKind.NODE, derived: true });
    expect(info(Metric.VM_DISK_READ_RATE).rateOf).toBe(Metric.VM_DISK_READ_BYTES);
    for (const [metric, about] of metrics()) {
        expect(about.name).toBe(Metric[metric].toLowerCase());
        expect(about.unit).not.toBe(Unit.UNSPECIFIED);
    }
});
