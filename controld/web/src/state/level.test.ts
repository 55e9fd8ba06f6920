import { expect, it } from "vitest";

import { level } from "./level";

it.each([
    [0, "ok"],
    [49.9, "ok"],
    [50, "busy"],
    [74.9, "busy"],
    [75, "high"],
    [89.9, "high"],
    [90, "critical"],
    [140, "critical"],
])("says of %d %% that it is %s", (percent, expected) => {
    expect(level(percent)).toBe(expected);
});
