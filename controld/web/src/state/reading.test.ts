import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";

import { VmFactsSchema, VmState } from "../gen/horcrux/v1/inventory_pb";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { VmSchema } from "../gen/horcrux/v1/vm_service_pb";
import type { VmThing } from "./fleet";
import { amount, firstReading, isUnlimited, reading } from "./reading";

function vm(values: readonly (readonly [Metric, number])[], sampledMs: number | undefined = 1): VmThing {
    return {
        kind: "vm",
        slot: 1,
        sampledMs,
        layout: new Map(values.map(([metric], place) => [metric, place])),
        values: Float32Array.from(values.map(([, value]) => value)),
        object: create(VmSchema, {
            name: "vms/1",
            facts: {
                absences: [
                    { metric: Metric.VM_MEMORY_USABLE, reason: "the guest has no balloon driver" },
                    { metric: Metric.VM_DISK_READ_BYTES, reason: "the monitor is busy" },
                    { metric: Metric.VM_DISK_WRITTEN_BYTES, instance: "vda", reason: "one disk only" },
                ],
            },
        }),
    };
}

it("gives a value, zero too", () => {
    expect(reading(vm([[Metric.VM_CPU_USAGE, 0]]), Metric.VM_CPU_USAGE)).toEqual({ metric: Metric.VM_CPU_USAGE, value: 0 });
});

it("says why there is none, as the node told it of the metric or of what it is made from", () => {
    const why = (metric: Metric) => (reading(vm([]), metric) as { absent: string }).absent;
    expect(why(Metric.VM_MEMORY_USABLE)).toBe("the guest has no balloon driver");
    expect(why(Metric.VM_MEMORY_USAGE)).toBe("the guest has no balloon driver");
    expect(why(Metric.VM_DISK_READ_RATE)).toBe("the monitor is busy");
    expect(why(Metric.VM_DISK_WRITE_RATE)).toMatch(/two samples/u);
    expect(why(Metric.VM_MEMORY_MAX)).toBe("not in the newest sample");
});

it("says that nothing came yet", () => {
    const unmeasured: VmThing = { ...vm([]), sampledMs: undefined };
    expect(reading(unmeasured, Metric.VM_MEMORY_MAX)).toMatchObject({ absent: "no sample has come yet" });
});

it("takes a limit for none only where what it limits was read", () => {
    const [limit, used] = [Metric.CONTAINER_MEMORY_LIMIT, Metric.CONTAINER_MEMORY_WORKING_SET] as const;
    expect(isUnlimited(vm([[used, 5]]), limit, used)).toBe(true);
    expect(isUnlimited(vm([]), limit, used)).toBe(false);
    expect(isUnlimited(vm([[used, 5], [limit, 9]]), limit, used)).toBe(false);
    // Its absence has a reason.
    expect(isUnlimited(vm([[used, 5]]), Metric.VM_MEMORY_USABLE, used)).toBe(false);
});

it("takes the first that is there", () => {
    const one = vm([[Metric.VM_IO_READ_RATE, 7]]);
    expect(firstReading(one, Metric.VM_DISK_READ_RATE, Metric.VM_IO_READ_RATE)).toMatchObject({ value: 7, metric: Metric.VM_IO_READ_RATE });
    expect(firstReading(vm([]), Metric.VM_DISK_READ_RATE, Metric.VM_IO_READ_RATE)).toMatchObject({ metric: Metric.VM_DISK_READ_RATE });
});

it("has no value of a VM that is off, and gives that as the reason", () => {
    for (const [state, reason] of [
        [VmState.SHUT_OFF, "the VM is shut off"],
        [VmState.CRASHED, "the VM has crashed"],
    ] as const) {
        const off = vm([[Metric.VM_CPU_USAGE, 7]]);
        off.object.facts = create(VmFactsSchema, { state });
        expect(reading(off, Metric.VM_CPU_USAGE)).toEqual({ metric: Metric.VM_CPU_USAGE, absent: reason });
        expect(reading(off, Metric.VM_MEMORY_MAX)).toMatchObject({ absent: reason });
        expect(amount(off, Metric.VM_CPU_USAGE)).toBeUndefined();
    }
});
