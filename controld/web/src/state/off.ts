// VMs that don't run. Their node measures nothing of them, so whatever is still held of one is of before.
import { VmState } from "../gen/horcrux/v1/inventory_pb";
import type { Thing } from "./fleet";

/** Why nothing is measured of it. Unset: it runs, or that isn't known. */
export function whyOff(thing: Thing): string | undefined {
    if (thing.kind !== "vm") {
        return undefined;
    }
    switch (thing.object.facts?.state) {
        case VmState.SHUT_OFF:
            return "the VM is shut off";
        case VmState.CRASHED:
            return "the VM has crashed";
        case undefined:
        case VmState.UNSPECIFIED:
        case VmState.RUNNING:
        case VmState.BLOCKED:
        case VmState.PAUSED:
        case VmState.SHUTTING_DOWN:
        case VmState.PM_SUSPENDED:
            return undefined;
    }
}
