// What went wrong with a call, in words for people.
import { Code, ConnectError } from "@connectrpc/connect";

import { plain } from "./text";

const UNREACHABLE = "The controller does not answer. Check that it runs and that the network reaches it.";

export function problem(error: unknown): string {
    const failure = ConnectError.from(error);
    const said = sentence(failure.rawMessage);
    switch (failure.code) {
        case Code.Unavailable:
        case Code.DeadlineExceeded:
            return UNREACHABLE;
        case Code.Unknown:
        case Code.Internal:
            // fetch() itself failed: nothing was reached.
            return error instanceof TypeError || failure.cause instanceof TypeError
                ? UNREACHABLE
                : `The controller failed: ${said}`;
        case Code.ResourceExhausted:
            return `Too much at once: ${said} Wait a moment and try again.`;
        default:
            return said;
    }
}

function sentence(text: string): string {
    const clean = plain(text).trim();
    if (clean === "") {
        return "No reason was given.";
    }
    return clean.charAt(0).toUpperCase() + clean.slice(1) + (/[.!?]$/u.test(clean) ? "" : ".");
}
