import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";

import { EntityKind, Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeState } from "../gen/horcrux/v1/node_service_pb";
import { EventKind, WatchResponseSchema } from "../gen/horcrux/v1/watch_service_pb";
import { EMPTY, type Fleet, type Thing, apply, serverMs, value } from "./fleet";

type Message = NonNullable<MessageInitShape<typeof WatchResponseSchema>["message"]>;

function after(messages: readonly Message[], fleet: Fleet = EMPTY, now = 0): Fleet {
    return messages.reduce((f, message) => apply(f, create(WatchResponseSchema, { message }), now), fleet);
}

function floats(...values: readonly number[]): Uint8Array {
    const bytes = new Uint8Array(values.length * 4);
    const view = new DataView(bytes.buffer);
    values.forEach((one, place) => {
        view.setFloat32(place * 4, one, true);
    });
    return bytes;
}

function node(slot: number, name: string, state = NodeState.CONNECTED) {
    return { slot, object: { case: "node" as const, value: { name: `nodes/${name}`, state } } };
}

function frame(slots: readonly number[], columns: readonly { metric: Metric; values: Uint8Array; instance?: string }[]) {
    return {
        entity: EntityKind.NODE,
        slots: [...slots],
        ageMs: slots.map((_, row) => row * 100),
        newestUnixMs: 50_000n,
        columns: [...columns],
    };
}

const CPU = Metric.NODE_CPU_USAGE;
const LOAD = Metric.NODE_LOAD_1M;
const hello: Message = { case: "hello", value: { controllerVersion: "1.2.3", serverUnixMs: 9000n } };
const whole: Message = {
    case: "snapshot",
    value: {
        entities: [node(1, "a"), node(2, "b")],
        frames: [frame([1, 2], [{ metric: CPU, values: floats(12.5, 99) }, { metric: LOAD, values: floats(0, NaN) }])],
        complete: true,
    },
};

function thing(fleet: Fleet, slot: number): Thing {
    const found = fleet.things.get(slot);
    if (found === undefined) {
        throw new Error(`no slot ${slot}`);
    }
    return found;
}

describe("the reducer", () => {
    it("takes a snapshot's objects and columns", () => {
        const fleet = after([hello, whole]);
        expect(fleet.version).toBe("1.2.3");
        expect(fleet.settled).toBe(true);
        expect([...fleet.things.keys()]).toEqual([1, 2]);
        expect(value(thing(fleet, 1), CPU)).toBe(12.5);
        expect(value(thing(fleet, 2), CPU)).toBe(99);
        expect(thing(fleet, 1).sampledMs).toBe(50_000);
        expect(thing(fleet, 2).sampledMs).toBe(49_900);
    });

    it("keeps zero and no value apart", () => {
        const fleet = after([hello, whole]);
        expect(value(thing(fleet, 1), LOAD)).toBe(0);
        expect(value(thing(fleet, 2), LOAD)).toBeUndefined();
        expect(value(thing(fleet, 2), Metric.NODE_UPTIME)).toBeUndefined();
    });

    it("shows nothing of a snapshot before it is complete", () => {
        const first: Message = { case: "snapshot", value: { entities: [node(7, "new")], frames: [], complete: false } };
        const last: Message = { case: "snapshot", value: { entities: [node(8, "newer")], frames: [], complete: true } };
        const half = after([hello, whole, first]);
        expect([...half.things.keys()]).toEqual([1, 2]);
        expect([...after([last], half).things.keys()]).toEqual([7, 8]);
    });

    it("applies changes that come between a snapshot's pieces to the coming snapshot", () => {
        const first: Message = { case: "snapshot", value: { entities: [node(7, "new")], frames: [], complete: false } };
        const gone: Message = { case: "changes", value: { sentUnixMs: 1n, gone: [7] } };
        const last: Message = { case: "snapshot", value: { entities: [node(8, "newer")], frames: [], complete: true } };
        expect([...after([hello, whole, first, gone, last]).things.keys()]).toEqual([8]);
    });

    it("replaces all values of an object that a frame holds, and none of the others", () => {
        const change: Message = {
            case: "changes",
            value: { sentUnixMs: 10_000n, frames: [frame([1], [{ metric: LOAD, values: floats(3) }])] },
        };
        const fleet = after([hello, whole, change]);
        expect(value(thing(fleet, 1), LOAD)).toBe(3);
        expect(value(thing(fleet, 1), CPU)).toBeUndefined();
        expect(value(thing(fleet, 2), CPU)).toBe(99);
    });

    it("keeps values when only the object changes", () => {
        const change: Message = { case: "changes", value: { sentUnixMs: 1n, entities: [node(1, "a", NodeState.DOWN)] } };
        const fleet = after([hello, whole, change]);
        const changed = thing(fleet, 1);
        expect(changed.kind === "node" && changed.object.state).toBe(NodeState.DOWN);
        expect(value(changed, CPU)).toBe(12.5);
    });

    it("forgets gone slots", () => {
        const fleet = after([hello, whole, { case: "changes", value: { sentUnixMs: 1n, gone: [1, 77] } }]);
        expect([...fleet.things.keys()]).toEqual([2]);
    });

    it("is behind from a gap to the next complete snapshot", () => {
        const behind = after([hello, whole, { case: "gap", value: { missedTicks: 3n, missedEvents: 1n } }]);
        expect(behind.behind).toBe(true);
        expect(behind.things.size).toBe(2);
        expect(after([whole], behind).behind).toBe(false);
    });

    it("counts what makes no sense and goes on", () => {
        const change: Message = {
            case: "changes",
            value: {
                sentUnixMs: 1n,
                entities: [{ slot: 5 }],
                frames: [
                    frame([1, 99], [{ metric: CPU, values: floats(1) }, { metric: LOAD, values: floats(4, 5) }]),
                ],
            },
        };
        const fleet = after([hello, whole, change]);
        // An object of no known kind, a column too short, a slot that nobody named.
        expect(fleet.unusable).toBe(3);
        expect(value(thing(fleet, 1), LOAD)).toBe(4);
    });

    it("leaves values of single instances out of the whole", () => {
        const change: Message = {
            case: "changes",
            value: { sentUnixMs: 1n, frames: [frame([1], [{ metric: CPU, values: floats(77), instance: "cpu0" }])] },
        };
        expect(value(thing(after([hello, whole, change]), 1), CPU)).toBeUndefined();
    });

    it("reads columns that lie at an odd place of the message", () => {
        const bytes = new Uint8Array(5);
        bytes.set(floats(42), 1);
        const change: Message = {
            case: "changes",
            value: { sentUnixMs: 1n, frames: [frame([1], [{ metric: CPU, values: bytes.subarray(1) }])] },
        };
        expect(value(thing(after([hello, whole, change]), 1), CPU)).toBe(42);
    });

    it("changes nothing of the fleet that it was given", () => {
        const before = after([hello, whole]);
        after([{ case: "changes", value: { sentUnixMs: 1n, gone: [1, 2] } }], before);
        expect(before.things.size).toBe(2);
    });

    it("keeps events, newest first and not forever", () => {
        const events = Array.from({ length: 150 }, (_, at) => ({ atUnixMs: BigInt(at), kind: EventKind.NODE_LATE, resource: "nodes/a" }));
        const change: Message = { case: "changes", value: { sentUnixMs: 1n, events } };
        const fleet = after([hello, change, change]);
        expect(fleet.events).toHaveLength(200);
        expect(fleet.events[0]?.event.atUnixMs).toBe(149n);
        expect(new Set(fleet.events.map(({ id }) => id)).size).toBe(200);
    });

    it("remembers what a thing was called when something happened to it", () => {
        const name = "vms/1";
        const appear: Message = {
            case: "changes",
            value: {
                sentUnixMs: 1n,
                entities: [{ slot: 9, object: { case: "vm", value: { name, facts: { displayName: "web" } } } }],
                events: [{ resource: name, kind: EventKind.VM_APPEARED }],
            },
        };
        const leave: Message = {
            case: "changes",
            value: { sentUnixMs: 2n, gone: [9], events: [{ resource: name, kind: EventKind.VM_GONE }] },
        };
        expect(after([hello, whole, appear, leave]).events.map(({ title }) => title)).toEqual(["web", "web"]);
    });

    it("knows the controller's time", () => {
        const fleet = after([hello], EMPTY, 100);
        expect(serverMs(fleet, 600)).toBe(9500);
        expect(serverMs(after([{ case: "heartbeat", value: { serverUnixMs: 20_000n } }], fleet, 700), 700)).toBe(20_000);
        expect(serverMs(EMPTY, 5)).toBeUndefined();
    });
});
