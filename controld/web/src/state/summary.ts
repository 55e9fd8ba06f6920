// The fleet in a few numbers. Sums are over nodes whose values are of now.
import { VmState } from "../gen/horcrux/v1/inventory_pb";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeState } from "../gen/horcrux/v1/node_service_pb";
import { NOTHING_COMES } from "./freshness";
import type { Row, Rows } from "./rows";

export interface Summary {
    readonly nodes: { readonly all: number; readonly connected: number; readonly late: number; readonly down: number };
    /** Unknown are those of nodes that are silent: what they were then says nothing of now. */
    readonly vms: { readonly all: number; readonly running: number; readonly unknown: number };
    readonly containers: { readonly all: number; readonly unknown: number };
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
            running: vms.filter((row) => isKnown(row) && row.thing.object.facts?.state === VmState.RUNNING).length,
            unknown: vms.filter((row) => !isKnown(row)).length,
        },
        containers: { all: containers.length, unknown: containers.filter((row) => !isKnown(row)).length },
        cpus,
        cpuPercent: cpus > 0 ? (busy / cpus) * 100 : undefined,
        memoryUsed: total > 0 ? used : undefined,
        memoryTotal: total > 0 ? total : undefined,
    };
}

/** Whether its node speaks for it. */
function isKnown({ stale }: Row): boolean {
    return stale === undefined || stale.label === NOTHING_COMES;
}
