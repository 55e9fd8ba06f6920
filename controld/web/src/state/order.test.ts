import { expect, it } from "vitest";

import { held, sorted } from "./order";

const rows = [
    { key: "n10", cpu: 5 },
    { key: "n2", cpu: undefined },
    { key: "n1", cpu: 50 },
];

it("sorts names as people count", () => {
    expect(sorted(rows, (row) => row.key, false).map((row) => row.key)).toEqual(["n1", "n2", "n10"]);
});

it("puts rows without a value last whichever way", () => {
    expect(sorted(rows, (row) => row.cpu, false).map((row) => row.key)).toEqual(["n10", "n1", "n2"]);
    expect(sorted(rows, (row) => row.cpu, true).map((row) => row.key)).toEqual(["n1", "n10", "n2"]);
});

it("holds rows in place, drops the gone and adds the new at the end", () => {
    expect(held(rows, ["n1", "gone", "n10"]).map((row) => row.key)).toEqual(["n1", "n10", "n2"]);
});
