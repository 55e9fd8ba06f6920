// What the tables hold: rows made from the fleet. Pure.
import {
    ContainerRuntime,
    ContainerRuntimeSchema,
    ContainerState,
    ContainerStateSchema,
    VmState,
    VmStateSchema,
} from "../gen/horcrux/v1/inventory_pb";
import type { Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeStateSchema } from "../gen/horcrux/v1/node_service_pb";
import { bare, plain, word } from "../words/text";
import { type ContainerThing, type Fleet, type NodeThing, type Thing, type VmThing } from "./fleet";
import { type Staleness, staleness } from "./freshness";
import { type Reading, amount, firstReading, reading } from "./reading";

export class Row<Of extends Thing = Thing> {
    /** The full resource name, which stays the same while rows move. */
    readonly key: string;
    readonly name: string;
    /** Without `nodes/`. */
    readonly node: string;
    /** In a word, for people and for `data-state`. */
    readonly state: string;

    constructor(
        readonly thing: Of,
        readonly stale: Staleness | undefined,
    ) {
        this.key = thing.object.name;
        ({ name: this.name, node: this.node, state: this.state } = named(thing));
    }

    read(metric: Metric, ...others: readonly Metric[]): Reading {
        return others.length === 0 ? reading(this.thing, metric) : firstReading(this.thing, metric, ...others);
    }

    /** Only the number, for sorting and adding. */
    amount(...metrics: readonly Metric[]): number | undefined {
        for (const metric of metrics) {
            const found = amount(this.thing, metric);
            if (found !== undefined) {
                return found;
            }
        }
        return undefined;
    }
}

export interface Rows {
    readonly nodes: readonly Row<NodeThing>[];
    readonly vms: readonly Row<VmThing>[];
    readonly containers: readonly Row<ContainerThing>[];
}

export function rows(fleet: Fleet, now: number): Rows {
    const known = new Map<string, NodeThing>();
    for (const thing of fleet.things.values()) {
        if (thing.kind === "node") {
            known.set(thing.object.name, thing);
        }
    }
    const nodes: Row<NodeThing>[] = [];
    const vms: Row<VmThing>[] = [];
    const containers: Row<ContainerThing>[] = [];
    for (const thing of fleet.things.values()) {
        const host = known.get(thing.kind === "node" ? thing.object.name : thing.object.node);
        const stale = staleness(thing, host, fleet, now);
        switch (thing.kind) {
            case "node":
                nodes.push(new Row(thing, stale));
                break;
            case "vm":
                vms.push(new Row(thing, stale));
                break;
            case "container":
                containers.push(new Row(thing, stale));
                break;
        }
    }
    return { nodes, vms, containers };
}

export function matches(row: Row, filter: string): boolean {
    const id = row.thing.kind === "container" ? (row.thing.object.facts?.id ?? "") : row.key;
    const made = row.thing.kind === "container" ? `${runtime(row.thing)} ${image(row.thing)}` : "";
    const text = `${row.name} ${row.node} ${row.state} ${row.stale?.label ?? ""} ${id} ${made}`.toLowerCase();
    return filter
        .toLowerCase()
        .split(/\s+/u)
        .every((part) => text.includes(part));
}

/** As docker shows it: the first 12 of a hash, other ids whole. */
export function shortId(thing: ContainerThing): string {
    const id = plain(thing.object.facts?.id ?? bare(thing.object.name));
    return /^[0-9a-f]{32,}$/u.test(id) ? id.slice(0, 12) : id;
}

export function runtime(thing: ContainerThing): string {
    return word(ContainerRuntimeSchema, thing.object.facts?.runtime ?? ContainerRuntime.UNSPECIFIED);
}

/** What it was made from, without a digest; empty where its runtime doesn't tell. */
export function image(thing: ContainerThing): string {
    return plain(thing.object.facts?.image ?? "").replace(/@sha256:.*$/u, "");
}

interface Naming {
    readonly name: string;
    readonly node: string;
    readonly state: string;
}

/** Objects change rarely, their values each second. */
const namings = new WeakMap<Thing["object"], Naming>();

function named(thing: Thing): Naming {
    const known = namings.get(thing.object);
    if (known !== undefined) {
        return known;
    }
    const made = naming(thing);
    namings.set(thing.object, made);
    return made;
}

function naming(thing: Thing): Naming {
    switch (thing.kind) {
        case "node": {
            const name = bare(thing.object.name);
            return { name, node: name, state: word(NodeStateSchema, thing.object.state) };
        }
        case "vm": {
            const { name, node, facts } = thing.object;
            const state = word(VmStateSchema, facts?.state ?? VmState.UNSPECIFIED);
            return { name: plain(facts?.displayName ?? "") || bare(name), node: bare(node), state };
        }
        case "container": {
            const { node, facts } = thing.object;
            const state = word(ContainerStateSchema, facts?.state ?? ContainerState.UNSPECIFIED);
            return { name: plain(facts?.displayName ?? "") || shortId(thing), node: bare(node), state };
        }
    }
}
