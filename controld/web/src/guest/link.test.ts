import { expect, test } from "vitest";

import { address, read } from "./link";

test("a link's address holds a secret at first, and then an id", () => {
    expect(read("#hxg_AbC")).toEqual({ by: "secret", secret: "hxg_AbC" });
    expect(read(new URL(address("7f3a00c1d2e3"), "https://web1").hash)).toEqual({ by: "id", id: "7f3a00c1d2e3" });
});

test("what is neither is nothing", () => {
    for (const hash of ["", "#", "#7f3a", "#7F3A00C1D2E3", "#hxc_AbC", "#7f3a00c1d2e3x"]) {
        expect(read(hash)).toEqual({ by: "nothing" });
    }
});
