// What a Watch stream has told so far: a pure reducer.
//
// A snapshot is built beside what is shown and replaces it when it is complete, so that nobody sees half of one. A frame
// holds all values of its objects: what it doesn't hold is no longer there. What can't be made sense of is counted and
// left out; it never ends the stream.
import type { Container } from "../gen/horcrux/v1/container_service_pb";
import type { Metric, MetricsFrame } from "../gen/horcrux/v1/metrics_pb";
import type { Node } from "../gen/horcrux/v1/node_service_pb";
import type { Vm } from "../gen/horcrux/v1/vm_service_pb";
import type { Changes, Entity, Event, Snapshot, WatchResponse } from "../gen/horcrux/v1/watch_service_pb";

export interface Fleet {
    readonly things: Things;
    /** The snapshot that is coming. */
    readonly building: Things | undefined;
    /** The stream's first snapshot was seen whole. */
    readonly settled: boolean;
    /** A gap was told, and the snapshot that closes it isn't complete. */
    readonly behind: boolean;
    /** The controller's time, and when by this machine's steady clock it was told. */
    readonly told: { readonly unixMs: number; readonly at: number } | undefined;
    readonly version: string;
    /** Newest first. */
    readonly events: readonly Happening[];
    /** Columns and slots that made no sense. */
    readonly unusable: number;
}

export type Things = ReadonlyMap<number, Thing>;

export type Thing = NodeThing | VmThing | ContainerThing;
export type NodeThing = Measured & { readonly kind: "node"; readonly object: Node };
export type VmThing = Measured & { readonly kind: "vm"; readonly object: Vm };
export type ContainerThing = Measured & { readonly kind: "container"; readonly object: Container };

interface Measured {
    readonly slot: number;
    /** By its node's clock. */
    readonly sampledMs: number | undefined;
    /** Where in `values` a metric stands. */
    readonly layout: ReadonlyMap<Metric, number>;
    readonly values: Float32Array;
}

export interface Happening {
    /** Grows with each. */
    readonly id: number;
    readonly event: Event;
    /** What it happened to called itself, where that was known and isn't in the resource's name. */
    readonly title: string | undefined;
}

const EVENTS_KEPT = 200;
const NO_LAYOUT: ReadonlyMap<Metric, number> = new Map();
const NO_VALUES = new Float32Array();

export const EMPTY: Fleet = {
    things: new Map(),
    building: undefined,
    settled: false,
    behind: false,
    told: undefined,
    version: "",
    events: [],
    unusable: 0,
};

/** Takes in one message that was received at `now`. */
export function apply(fleet: Fleet, response: WatchResponse, now: number): Fleet {
    const { message } = response;
    switch (message.case) {
        case "hello":
            return {
                ...fleet,
                building: undefined,
                settled: false,
                told: { unixMs: Number(message.value.serverUnixMs), at: now },
                version: message.value.controllerVersion,
            };
        case "snapshot":
            return takeSnapshot(fleet, message.value);
        case "changes":
            return takeChanges(fleet, message.value, now);
        case "heartbeat":
            return { ...fleet, told: { unixMs: Number(message.value.serverUnixMs), at: now } };
        case "gap":
            return { ...fleet, building: undefined, behind: true };
        case undefined:
            // Of a newer controller.
            return fleet;
    }
}

/** The newest value of the thing as a whole. */
export function value(thing: Thing, metric: Metric): number | undefined {
    const place = thing.layout.get(metric);
    const found = place === undefined ? undefined : thing.values[place];
    return Number.isFinite(found) ? found : undefined;
}

/** The controller's time at `now`, from what it last said. */
export function serverMs(fleet: Fleet, now: number): number | undefined {
    return fleet.told === undefined ? undefined : fleet.told.unixMs + now - fleet.told.at;
}

function takeSnapshot(fleet: Fleet, piece: Snapshot): Fleet {
    const draft = new Draft(fleet.building ?? new Map());
    piece.entities.forEach((entity) => {
        draft.put(entity);
    });
    piece.frames.forEach((frame) => {
        draft.fill(frame);
    });
    const unusable = fleet.unusable + draft.unusable;
    return piece.complete
        ? { ...fleet, things: draft.things, building: undefined, settled: true, behind: false, unusable }
        : { ...fleet, building: draft.things, unusable };
}

function takeChanges(fleet: Fleet, changes: Changes, now: number): Fleet {
    // They belong to the newest snapshot, whole or not.
    const draft = new Draft(fleet.building ?? fleet.things);
    changes.entities.forEach((entity) => {
        draft.put(entity);
    });
    changes.frames.forEach((frame) => {
        draft.fill(frame);
    });
    changes.gone.forEach((slot) => draft.things.delete(slot));
    return {
        ...fleet,
        ...(fleet.building === undefined ? { things: draft.things } : { building: draft.things }),
        told: { unixMs: Number(changes.sentUnixMs), at: now },
        // With what was there before `gone` took it away.
        events: remember(fleet.events, changes.events, fleet.building ?? fleet.things, draft.things),
        unusable: fleet.unusable + draft.unusable,
    };
}

function remember(
    known: readonly Happening[],
    events: readonly Event[],
    ...things: readonly Things[]
): readonly Happening[] {
    if (events.length === 0) {
        return known;
    }
    const concerned = new Set(events.map((event) => event.resource));
    const titles = new Map<string, string>();
    for (const thing of things.flatMap((some) => [...some.values()])) {
        if (thing.kind !== "node" && concerned.has(thing.object.name) && thing.object.facts?.displayName) {
            titles.set(thing.object.name, thing.object.facts.displayName);
        }
    }
    const next = (known[0]?.id ?? 0) + 1;
    const fresh = events.map((event, place) => ({ id: next + place, event, title: titles.get(event.resource) }));
    return [...fresh.reverse(), ...known].slice(0, EVENTS_KEPT);
}

/** Things being changed: a copy, so that whoever holds the old ones sees no change. */
class Draft {
    readonly things: Map<number, Thing>;
    unusable = 0;

    constructor(things: Things) {
        this.things = new Map(things);
    }

    put(entity: Entity): void {
        const { slot, object } = entity;
        if (object.case === undefined) {
            this.unusable += 1;
            return;
        }
        const known = this.things.get(slot);
        const told = object.value.lastSampleUnixMs;
        const measured: Measured = {
            slot,
            sampledMs: newer(known?.sampledMs, told === undefined ? undefined : Number(told)),
            layout: known?.layout ?? NO_LAYOUT,
            values: known?.values ?? NO_VALUES,
        };
        switch (object.case) {
            case "node":
                this.things.set(slot, { ...measured, kind: "node", object: object.value });
                break;
            case "vm":
                this.things.set(slot, { ...measured, kind: "vm", object: object.value });
                break;
            case "container":
                this.things.set(slot, { ...measured, kind: "container", object: object.value });
                break;
        }
    }

    fill(frame: MetricsFrame): void {
        const rows = frame.slots.length;
        const columns: DataView[] = [];
        const layout = new Map<Metric, number>();
        for (const column of frame.columns) {
            const bytes = column.values;
            if (bytes.byteLength !== rows * Float32Array.BYTES_PER_ELEMENT) {
                this.unusable += 1;
            } else if (column.instance === "") {
                layout.set(column.metric, columns.length);
                columns.push(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
            }
        }
        const newest = Number(frame.newestUnixMs);
        frame.slots.forEach((slot, row) => {
            const thing = this.things.get(slot);
            if (thing === undefined) {
                this.unusable += 1;
                return;
            }
            const values = new Float32Array(columns.length);
            columns.forEach((column, place) => {
                values[place] = column.getFloat32(row * Float32Array.BYTES_PER_ELEMENT, true);
            });
            this.things.set(slot, { ...thing, layout, values, sampledMs: newest - (frame.ageMs[row] ?? 0) });
        });
    }
}

function newer(one: number | undefined, other: number | undefined): number | undefined {
    if (one === undefined || other === undefined) {
        return one ?? other;
    }
    return Math.max(one, other);
}
