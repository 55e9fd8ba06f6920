// The fleet in a few numbers. Sums are over nodes whose values are of now.
import { VmState } from "../gen/horcrux/v1/inventory_pb";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeState } from "../gen/horcrux/v1/node_service_pb";
import type { Rows } from "./rows";

export interface Summary {
    readonly nodes: { readonly all: number; readonly connected: number; readonly late: number; readonly down: number };
    readonly vms: { readonly all: number; readonly running: number };
    readonly containers: number;
    readonly cpus: number;
    /** Of all cores. Unset: no node tells it. */
    readonly cpuPercent: number | undefined;
    readonly memoryUsed: number | undefined;
    readonly memoryTotal: number | undefined;
}

export function summary({ nodes, vms, containers }: Rows): Summary {
    const count = (state: NodeState): number => nodes.filter((row) => row.thing.object.state === state).length;
    let cpus = 0;
    let busy = 0;
    let used = 0;
    let total = 0;
    for (const row of nodes.filter((one) => one.stale === undefined)) {
        const cores = row.thing.object.facts?.cpus ?? 0;
        const usage = row.amount(Metric.NODE_CPU_USAGE);
        if (usage !== undefined) {
            cpus += cores;
            busy += (usage / 100) * cores;
        }
        const mine = row.amount(Metric.NODE_MEMORY_USED);
        const whole = row.amount(Metric.NODE_MEMORY_TOTAL);
        if (mine !== undefined && whole !== undefined) {
            used += mine;
            total += whole;
        }
    }
    return {
        nodes: {
            all: nodes.length,
            connected: count(NodeState.CONNECTED),
            late: count(NodeState.LATE),
            down: count(NodeState.DOWN),
        },
        vms: {
            all: vms.length,
            running: vms.filter((row) => row.thing.object.facts?.state === VmState.RUNNING).length,
        },
        containers: containers.length,
        cpus,
        cpuPercent: cpus > 0 ? (busy / cpus) * 100 : undefined,
        memoryUsed: total > 0 ? used : undefined,
        memoryTotal: total > 0 ? total : undefined,
    };
}
