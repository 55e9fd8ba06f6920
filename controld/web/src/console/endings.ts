// Each way in which a console ends: what is said, and what can be done. Pure.
import { Code, ConnectError } from "@connectrpc/connect";

import { problem } from "../words/problem";
import { plain } from "../words/text";

/** What follows by itself or can be pressed. `again`: another ticket is asked for, after a pause. `over`: nothing helps. */
export type Next = "again" | "ask" | "sign-in" | "over";

export interface Ending {
    /** For `data-ending`, and a short word for people who report it. */
    readonly cause: string;
    readonly title: string;
    readonly text: string;
    /** What the controller said, where that is more. */
    readonly said: string;
    readonly next: Next;
}

type Kept = Omit<Ending, "said">;

const LOST: Kept = {
    cause: "lost",
    title: "The connection is lost",
    text: "The network or the controller went away. The VM itself is not touched by that.",
    next: "again",
};

const SESSION: Kept = {
    cause: "session",
    title: "Your session is over",
    text: "Sign in again: you come back to this console.",
    next: "sign-in",
};

const TOO_MANY: Kept = {
    cause: "too-many",
    title: "Too many consoles are open",
    text: "Close one of yours, or wait until others leave this VM.",
    next: "ask",
};

/** By the close codes of proto/src/console.rs. */
const ENDINGS: ReadonlyMap<number, Kept> = new Map<number, Kept>([
    [1000, { cause: "closed", title: "The console is closed", text: "It was closed in good order.", next: "ask" }],
    [1006, LOST],
    [1012, { cause: "restart", title: "The controller restarts", text: "The console is opened again when it is back.", next: "again" }],
    [
        4400,
        {
            cause: "ticket",
            title: "The ticket was not taken",
            text: "A ticket works once and soon. Another one is made when you try again.",
            next: "ask",
        },
    ],
    [4401, SESSION],
    [
        4403,
        {
            cause: "right",
            title: "You may no longer open this console",
            text: "The right to this VM's consoles was taken away. Whoever gives rights here can give it back.",
            next: "ask",
        },
    ],
    [4404, { cause: "off", title: "The VM is off", text: "It was switched off, or is no more. Start it, and try again.", next: "ask" }],
    [4408, { cause: "idle", title: "Nobody used the console", text: "It was closed because nothing was typed or shown for a long time.", next: "ask" }],
    [4409, { cause: "moved", title: "The VM was moved", text: "This console could not follow it. A new one is opened where the VM is now.", next: "again" }],
    [4410, { cause: "node", title: "The VM's node is out of reach", text: "The node was locked, or the controller can't reach it.", next: "ask" }],
    [4411, { cause: "taken", title: "Somebody else took this console", text: "Another viewer has it now.", next: "ask" }],
    [4412, { cause: "ended", title: "Somebody ended this console", text: "A person who may do so closed it.", next: "ask" }],
    [4413, { cause: "refused", title: "The node refused", text: "Its policy doesn't allow consoles, or the VM has none of this kind.", next: "ask" }],
    [4422, { cause: "protocol", title: "The console was closed", text: "This page sent something that the controller didn't understand. Load the page anew.", next: "ask" }],
    [4429, TOO_MANY],
    [4500, { cause: "failed", title: "The console failed", text: "It could not be opened, or broke.", next: "ask" }],
]);

const UNKNOWN: Kept = { cause: "unknown", title: "The console is closed", text: "The reason is none that this page knows.", next: "ask" };

export function ofClose(code: number, reason: string): Ending {
    const said = plain(reason).trim();
    const found = ENDINGS.get(code);
    return found === undefined ? { ...UNKNOWN, said: said || `Code ${code}.` } : { ...found, said };
}

/** The ticket was not given. */
export function ofTicket(error: unknown): Ending {
    const text = problem(error);
    switch (ConnectError.from(error).code) {
        case Code.Unauthenticated:
            return { ...SESSION, said: "" };
        case Code.Unavailable:
        case Code.DeadlineExceeded:
        case Code.Unknown:
        case Code.Internal:
        case Code.Aborted:
            return { ...LOST, title: "The console can't be opened now", text, said: "" };
        case Code.PermissionDenied:
        case Code.NotFound:
            return {
                cause: "absent",
                title: "There is no such console for you",
                text: "The VM is not there, or its consoles aren't yours to open.",
                said: "",
                next: "ask",
            };
        case Code.ResourceExhausted:
            return { ...TOO_MANY, said: text };
        default:
            return { cause: "not-opened", title: "The console can't be opened", text, said: "", next: "ask" };
    }
}

/** The VM's side said what a viewer can't read. */
export function ofGarbled(what: string): Ending {
    return { cause: "garbled", title: "The screen can't be read", text: "What came is no screen that this page understands.", said: plain(what), next: "ask" };
}
