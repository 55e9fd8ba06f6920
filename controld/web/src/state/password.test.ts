import { expect, it } from "vitest";

import { weakness } from "./password";

it.each([
    ["123456789", "123456789", /at least 10/u],
    ["🔑".repeat(9), "🔑".repeat(9), /at least 10/u],
    ["🔑".repeat(65), "🔑".repeat(65), /256 bytes/u],
    ["1234567890", "1234567891", /not the same/u],
])("refuses %s", (password, again, reason) => {
    expect(weakness(password, again)).toMatch(reason);
});

it("takes what the controller takes", () => {
    expect(weakness("🔑".repeat(10), "🔑".repeat(10))).toBeUndefined();
    expect(weakness("x".repeat(256), "x".repeat(256))).toBeUndefined();
});
