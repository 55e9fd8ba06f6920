import { expect, it } from "vitest";

import { ofClose } from "./endings";
import { NOTHING, type Picture, type Stage } from "./flow";
import { QUALITIES, qualityOf } from "./quality";
import { others, status } from "./status";

const at = (stage: Stage, inControl = true): Picture => ({ ...NOTHING, stage, inControl });

it("says in words where a console stands", () => {
    const open = at({ at: "open" });
    expect(status(at({ at: "ticket" }), "vnc", false).text).toBe("Asking for a ticket");
    expect(status(open, "vnc", false).text).toBe("Waiting for the screen");
    expect(status(open, "vnc", true).text).toBe("Connected");
    expect(status(open, "serial", false).text).toBe("Connected");
    expect(status(at({ at: "open" }, false), "vnc", true).text).toBe("Connected, looking on");
    expect(status(at({ at: "waiting", why: "it is being moved\u202e" }), "vnc", true).text).toBe("Waiting: it is being moved\uFFFD");
    expect(status(at({ at: "pausing", ending: ofClose(1012, ""), ms: 1 }), "vnc", false).text).toBe("The controller restarts. Trying again");
    expect(status(at({ at: "ended", ending: ofClose(4404, "") }), "vnc", false).text).toBe("The VM is off");
});

it("counts who else is watching", () => {
    const viewer = (isYou: boolean) => ({ console: "", user: "", inControl: false, mayControl: false, isYou, guest: undefined });
    const watched = (...all: boolean[]): string => others({ ...NOTHING, viewers: all.map(viewer) });
    expect([watched(true), watched(true, false), watched(true, false, false)]).toEqual([
        "Nobody else is watching",
        "1 other is watching",
        "2 others are watching",
    ]);
});

it("has qualities that noVNC takes, and one to begin with", () => {
    for (const { id, picture, compression } of QUALITIES) {
        expect([picture, compression].every((level) => Number.isInteger(level) && level >= 0 && level <= 9), id).toBe(true);
        expect(qualityOf(id).id).toBe(id);
    }
    expect(qualityOf(undefined).id).toBe("balanced");
});
