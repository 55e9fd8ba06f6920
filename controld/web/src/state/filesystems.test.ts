import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, it } from "vitest";

import { Metric, MetricValueSchema } from "../gen/horcrux/v1/metrics_pb";
import { filesystems } from "./filesystems";

const SIZE = Metric.NODE_FILESYSTEM_SIZE;
const AVAILABLE = Metric.NODE_FILESYSTEM_AVAILABLE;
const USAGE = Metric.NODE_FILESYSTEM_USAGE;

function of(...values: readonly MessageInitShape<typeof MetricValueSchema>[]) {
    return filesystems(values.map((value) => create(MetricValueSchema, value)));
}

it("gathers what is told of each mount point, and nothing else", () => {
    const found = of(
        { metric: USAGE, instance: "/var", value: 75 },
        { metric: SIZE, instance: "/", value: 1000 },
        { metric: AVAILABLE, instance: "/", value: 0 },
        { metric: USAGE, instance: "/", value: 100 },
        { metric: Metric.NODE_FILESYSTEM_READ_ONLY, instance: "/", value: 1 },
        { metric: Metric.NODE_DISK_READ_BYTES, instance: "sda", value: 5 },
        { metric: USAGE, value: 50 },
    );
    expect(found.map(({ mountpoint, readOnly }) => [mountpoint, readOnly])).toEqual([["/", true], ["/var", false]]);
    expect(found[0]).toMatchObject({ size: { value: 1000 }, available: { value: 0 }, usage: { value: 100 } });
});

it("says why a value is not there", () => {
    const [found] = of({ metric: SIZE, instance: "/nfs", absentReason: "its server does not answer" });
    expect(found?.size).toEqual({ metric: SIZE, absent: "its server does not answer" });
    expect(found?.usage).toEqual({ metric: USAGE, absent: "the node does not tell it" });
});
