import { expect, it } from "vitest";

import { href, keptHref, readAddress } from "./address";

const UUID = "0a1b2c3d-0000-4000-8000-00000000000f";

it("reads what it writes", () => {
    for (const kind of ["vnc", "serial"] as const) {
        for (const mode of ["control", "view"] as const) {
            const address = { uuid: UUID, kind, mode };
            const { pathname, search } = new URL(href(address), "https://hx.example");
            expect(readAddress(pathname, search)).toEqual(address);
        }
    }
    expect(href({ uuid: UUID, kind: "vnc", mode: "control" })).toBe(`/vms/${UUID}/console`);
});

it("takes what it doesn't know for the screen with keys", () => {
    const screen = { uuid: UUID, kind: "vnc", mode: "control" };
    expect(readAddress(`/vms/${UUID.toUpperCase()}/console/`, "?kind=spice&mode=own")).toEqual(screen);
});

it("is no other address", () => {
    expect(readAddress(`/vms/${UUID}`, "")).toBeUndefined();
    expect(readAddress("/vms/web1/console", "")).toBeUndefined();
    expect(readAddress(`/x/vms/${UUID}/console`, "")).toBeUndefined();
});

it("goes back to a console after a sign-in, and nowhere else", () => {
    expect(keptHref(`/vms/${UUID}/console?kind=serial&more=1`)).toBe(`/vms/${UUID}/console?kind=serial`);
    expect(keptHref("//evil.example/vms")).toBeUndefined();
    expect(keptHref(`https://evil.example/vms/${UUID}/console`)).toBeUndefined();
    expect(keptHref(undefined)).toBeUndefined();
});
