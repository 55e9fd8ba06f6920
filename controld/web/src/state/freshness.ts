// Whether what is shown of a thing is of now.
import { NodeState } from "../gen/horcrux/v1/node_service_pb";
import { type Fleet, type NodeThing, type Thing, serverMs } from "./fleet";
import { whyOff } from "./off";

/** Three samples of the slowest usual cadence (5 s) have not come. */
const STALE_AFTER_MS = 15_000;

/** The label where a node is well and tells nothing of a thing. */
export const NOTHING_COMES = "stale";

export interface Staleness {
    /** In a word: how its node is, or that nothing comes. */
    readonly label: string;
    readonly ageMs: number | undefined;
}

export function staleness(
    thing: Thing,
    node: NodeThing | undefined,
    fleet: Fleet,
    now: number,
): Staleness | undefined {
    const ageMs = age(thing, node, fleet, now);
    switch (node?.object.state) {
        case NodeState.LATE:
            return { label: "late", ageMs };
        case NodeState.DOWN:
            return { label: "down", ageMs };
        case NodeState.NEVER_SEEN:
            return { label: "not seen", ageMs };
        case undefined:
            // Who may not see the node still sees what comes of the VM.
            return ageMs !== undefined && ageMs <= STALE_AFTER_MS ? undefined : { label: "unknown", ageMs };
        case NodeState.UNSPECIFIED:
        case NodeState.CONNECTED:
        case NodeState.HERE:
            // Of what is off nothing is measured: its silence is no failure.
            return whyOff(thing) === undefined && ageMs !== undefined && ageMs > STALE_AFTER_MS
                ? { label: NOTHING_COMES, ageMs }
                : undefined;
    }
}

/** How old its newest sample is, by one clock. */
export function age(thing: Thing, node: NodeThing | undefined, fleet: Fleet, now: number): number | undefined {
    const server = serverMs(fleet, now);
    if (thing.sampledMs === undefined || server === undefined) {
        return undefined;
    }
    const ahead = Number(node?.object.clockOffsetMs ?? 0n);
    return Math.max(0, server - (thing.sampledMs - ahead));
}
