import { expect, it } from "vitest";

import { href, keptHref, readAddress } from "./address";

it("finds the list, that of a VM, and one", () => {
    expect(readAddress("/recordings", "")).toEqual({ at: "list", vm: "" });
    expect(readAddress("/recordings/", "?vm=web1")).toEqual({ at: "list", vm: "web1" });
    expect(readAddress("/recordings/4f0c_A-1", "")).toEqual({ at: "one", id: "4f0c_A-1" });
    for (const other of ["/", "/recordings/a/b", "/recordings/%2e%2e", `/recordings/${"a".repeat(129)}`, "/x/recordings"]) {
        expect(readAddress(other, "")).toBeUndefined();
    }
});

it("leads back to itself after a sign-in, and nowhere else", () => {
    for (const path of ["/recordings", "/recordings?vm=web+1", "/recordings/4f0c"]) {
        expect(keptHref(path)).toBe(path);
    }
    expect(keptHref("/recordings?vm=a&x=//evil")).toBe("/recordings?vm=a");
    for (const other of [undefined, "", "https://evil/recordings", "//evil/recordings", "/account"]) {
        expect(keptHref(other)).toBeUndefined();
    }
    expect(href({ at: "list", vm: "a b&c" })).toBe("/recordings?vm=a+b%26c");
});
