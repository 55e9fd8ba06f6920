import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";

import { ContainerState, VmState } from "../gen/horcrux/v1/inventory_pb";
import { NodeState } from "../gen/horcrux/v1/node_service_pb";
import { WatchResponseSchema } from "../gen/horcrux/v1/watch_service_pb";
import { EMPTY, apply } from "./fleet";
import { matches, rows } from "./rows";
import { summary } from "./summary";

function fleet(down: NodeState) {
    const node = (slot: number, name: string, state: NodeState) => ({
        slot,
        object: { case: "node" as const, value: { name: `nodes/${name}`, state } },
    });
    const vm = (slot: number, on: string, state: VmState) => ({
        slot,
        object: { case: "vm" as const, value: { name: `vms/${slot}`, node: `nodes/${on}`, facts: { state } } },
    });
    const facts = { id: "3f2a", state: ContainerState.PAUSED, image: "nginx:1.27@sha256:00" };
    const container = { name: "containers/b/3f2a", node: "nodes/b", facts };
    const entities = [
        node(1, "a", NodeState.CONNECTED),
        node(2, "b", down),
        vm(3, "a", VmState.RUNNING),
        vm(4, "a", VmState.SHUT_OFF),
        vm(5, "b", VmState.RUNNING),
        { slot: 6, object: { case: "container" as const, value: container } },
    ];
    const message = { case: "snapshot" as const, value: { entities, complete: true } };
    return rows(apply(EMPTY, create(WatchResponseSchema, { message }), 0), 0);
}

it("counts as running only what a node says now", () => {
    expect(summary(fleet(NodeState.CONNECTED))).toMatchObject({ vms: { all: 3, running: 2, unknown: 0 } });
    for (const silent of [NodeState.LATE, NodeState.DOWN]) {
        expect(summary(fleet(silent))).toMatchObject({
            vms: { all: 3, running: 1, unknown: 1 },
            containers: { all: 1, unknown: 1 },
        });
    }
});

it("says of a container how it is, and finds it by what it was made from", () => {
    const [row] = fleet(NodeState.CONNECTED).containers;
    expect(row?.state).toBe("paused");
    expect(row !== undefined && matches(row, "paused nginx")).toBe(true);
    expect(row !== undefined && matches(row, "redis")).toBe(false);
});
