import { expect, it } from "vitest";

import { readNotice } from "./wire";

it("reads viewers as the controller writes them", () => {
    // The same text is in proto/src/console.rs.
    const text =
        '{"notice":"viewers","viewers":[{"console":"consoles/a","user":"alice@local","inControl":true,"mayControl":true,"isYou":false}]}';
    const viewers = [{ console: "consoles/a", user: "alice@local", inControl: true, mayControl: true, isYou: false }];
    expect(readNotice(text)).toEqual({ notice: "viewers", viewers });
});

it("takes nothing that it doesn't know", () => {
    for (const text of ["", "{", "null", "[]", '"opened"', '{"notice":"later"}']) {
        expect(readNotice(text)).toBeUndefined();
    }
    expect(readNotice('{"notice":"control","inControl":"yes","by":7}')).toEqual({ notice: "control", inControl: false, by: "" });
    expect(readNotice('{"notice":"viewers","viewers":[null,1]}')).toEqual({ notice: "viewers", viewers: [] });
});
