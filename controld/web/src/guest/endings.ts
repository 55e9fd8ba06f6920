// How a guest's console ends, where that is something else than for who has an account. Pure.
import type { Ending } from "../console/endings";

const ASK = "Ask whoever gave you the link for another one.";

const WORDS: ReadonlyMap<string, Omit<Ending, "said" | "cause">> = new Map<string, Omit<Ending, "said" | "cause">>([
    ["session", { title: "The link has ended", text: `It has expired, or was taken back. ${ASK}`, next: "over" }],
    [
        "right",
        {
            title: "The link works no more",
            text: "Whoever gave it to you may no longer open this console, or let others in.",
            next: "over",
        },
    ],
    [
        "absent",
        {
            title: "The link works no more",
            text: "Whoever gave it to you may no longer open this console, or let others in.",
            next: "over",
        },
    ],
    [
        "taken",
        {
            title: "The link was opened elsewhere",
            text: "Of one link one console is open at a time. Try again to take it back.",
            next: "ask",
        },
    ],
    ["too-many", { title: "Too many consoles are open", text: "Wait until others leave this VM.", next: "ask" }],
]);

export function worded(ending: Ending): Ending {
    const found = WORDS.get(ending.cause);
    return found === undefined ? ending : { ...ending, ...found };
}
