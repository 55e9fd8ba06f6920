// The state of a console in words. Pure.
import type { Kind } from "./address";
import type { Picture } from "./flow";
import { plain } from "../words/text";

export interface Status {
    readonly sign: string;
    readonly text: string;
}

/** `drawn`: the screen's first picture has come. A serial line has none to wait for. */
export function status({ stage, inControl }: Picture, kind: Kind, drawn: boolean): Status {
    switch (stage.at) {
        case "ticket":
            return { sign: "○", text: "Asking for a ticket" };
        case "opening":
            return { sign: "○", text: "Opening" };
        case "open":
            if (!drawn && kind === "vnc") {
                return { sign: "◔", text: "Waiting for the screen" };
            }
            return { sign: "●", text: inControl ? "Connected" : "Connected, looking on" };
        case "waiting":
            return { sign: "◌", text: stage.why === "" ? "Waiting" : `Waiting: ${plain(stage.why)}` };
        case "pausing":
            return { sign: "◌", text: `${stage.ending.title}. Trying again` };
        case "ended":
            return { sign: "✕", text: stage.ending.title };
    }
}

/** Who looks at it beside oneself. */
export function others({ viewers }: Picture): string {
    const count = viewers.filter(({ isYou }) => !isYou).length;
    return count === 0 ? "Nobody else is watching" : count === 1 ? "1 other is watching" : `${count} others are watching`;
}
