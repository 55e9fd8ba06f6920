import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";

import { VmState } from "../gen/horcrux/v1/inventory_pb";
import { NodeSchema, NodeState } from "../gen/horcrux/v1/node_service_pb";
import { VmSchema } from "../gen/horcrux/v1/vm_service_pb";
import { EMPTY, type NodeThing, type VmThing } from "./fleet";
import { staleness } from "./freshness";

const NOW_MS = 1_000_000;
const fleet = { ...EMPTY, told: { unixMs: NOW_MS, at: 0 } };

function node(state: NodeState): NodeThing {
    const object = create(NodeSchema, { name: "nodes/a", state });
    return { kind: "node", slot: 1, sampledMs: NOW_MS, layout: new Map(), values: new Float32Array(), object };
}

function silent(state: VmState): VmThing {
    const object = create(VmSchema, { name: "vms/1", node: "nodes/a", facts: { state } });
    return { kind: "vm", slot: 2, sampledMs: NOW_MS - 60_000, layout: new Map(), values: new Float32Array(), object };
}

it("calls a VM stale of which nothing comes though it runs", () => {
    const stale = { label: "stale", ageMs: 60_000 };
    expect(staleness(silent(VmState.RUNNING), node(NodeState.CONNECTED), fleet, 0)).toEqual(stale);
    expect(staleness(silent(VmState.PAUSED), node(NodeState.CONNECTED), fleet, 0)).toEqual(stale);
});

it("expects nothing of a VM that is off", () => {
    expect(staleness(silent(VmState.SHUT_OFF), node(NodeState.CONNECTED), fleet, 0)).toBeUndefined();
    expect(staleness(silent(VmState.CRASHED), node(NodeState.CONNECTED), fleet, 0)).toBeUndefined();
});

it("doesn't know that a VM is off when its node is not heard", () => {
    expect(staleness(silent(VmState.SHUT_OFF), node(NodeState.DOWN), fleet, 0)).toMatchObject({ label: "down" });
    expect(staleness(silent(VmState.SHUT_OFF), undefined, fleet, 0)).toMatchObject({ label: "unknown" });
});

it("believes what comes of a VM whose node may not be seen", () => {
    const heard = { ...silent(VmState.RUNNING), sampledMs: NOW_MS - 1000 };
    expect(staleness(heard, undefined, fleet, 0)).toBeUndefined();
    expect(staleness(silent(VmState.RUNNING), undefined, fleet, 0)).toMatchObject({ label: "unknown" });
});
