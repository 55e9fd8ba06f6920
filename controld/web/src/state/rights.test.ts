import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";

import { HeldPrivilegesSchema } from "../gen/horcrux/v1/auth_service_pb";
import { Privilege } from "../gen/horcrux/v1/authz_pb";
import { coversAll, holdsNothing, mayHoldOnVm, privilegeName } from "./rights";

function held(path: string, propagate: boolean, ...privileges: Privilege[]) {
    return create(HeldPrivilegesSchema, { path, propagate, privileges });
}

it("knows who holds nothing", () => {
    expect(holdsNothing([])).toBe(true);
    expect(holdsNothing([held("/", true)])).toBe(true);
    expect(holdsNothing([held("/vms/1", false, Privilege.VM_AUDIT)])).toBe(false);
});

it("says that there is nothing only to who would see it", () => {
    const { VM_AUDIT, SYS_AUDIT } = Privilege;
    expect(coversAll([held("/", true, VM_AUDIT)], "/vms", VM_AUDIT)).toBe(true);
    expect(coversAll([held("/vms", true, VM_AUDIT)], "/vms", VM_AUDIT)).toBe(true);
    expect(coversAll([held("/", false, VM_AUDIT)], "/vms", VM_AUDIT)).toBe(false);
    expect(coversAll([held("/", true, SYS_AUDIT)], "/vms", VM_AUDIT)).toBe(false);
    expect(coversAll([held("/pools/ci", true, VM_AUDIT)], "/vms", VM_AUDIT)).toBe(false);
});

it("names privileges as people see them", () => {
    expect(privilegeName(Privilege.VM_POWER_MGMT)).toBe("VmPowerMgmt");
    expect(privilegeName(Privilege.SYS_AUDIT)).toBe("SysAudit");
});

it("offers a console wherever the right may be held, and nowhere else", () => {
    const { VM_AUDIT, VM_CONSOLE } = Privilege;
    const may = (...all: ReturnType<typeof held>[]): boolean => mayHoldOnVm(all, "vms/1", VM_CONSOLE);
    expect(may(held("/", true, VM_CONSOLE))).toBe(true);
    expect(may(held("/vms", true, VM_CONSOLE))).toBe(true);
    expect(may(held("/vms/1", false, VM_CONSOLE))).toBe(true);
    expect(may(held("/pools/shop", true, VM_CONSOLE))).toBe(true);
    expect(may(held("/vms?tag=shop", true, VM_CONSOLE))).toBe(true);
    expect(may(held("/", true, VM_AUDIT), held("/vms", false, VM_CONSOLE), held("/vms/2", true, VM_CONSOLE))).toBe(false);
});
