// What went wrong with a call, in words for people.
import { Code, ConnectError } from "@connectrpc/connect";

import { plain } from "./text";

const UNREACHABLE = "The controller does not answer. Check that it runs and that the network reaches it.";

/** What a form calls the contract's fields. */
export type Labels = Readonly<Record<string, string>>;

/** The fields that an error begins with: `old_password: `, `add, remove: `. */
const FIELDS = /^[a-z][a-z0-9_]*(?:, [a-z][a-z0-9_]*)*(?=: )/u;

export function problem(error: unknown, labels: Labels = {}): string {
    const failure = ConnectError.from(error);
    const said = sentence(labelled(failure.rawMessage, labels));
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
        default:
            return said;
    }
}

/** Of something that was to be seen. The controller lets what is absent and what is forbidden look the same. */
export function problemSeeing(error: unknown): string {
    const { code } = ConnectError.from(error);
    return code === Code.NotFound || code === Code.PermissionDenied
        ? "It is not there, or it isn't yours to see."
        : problem(error);
}

/** People know a field by its label, and never see the contract. */
function labelled(text: string, labels: Labels): string {
    return text.replace(FIELDS, (fields) =>
        fields
            .split(", ")
            .map((field) => labels[field] ?? field.replaceAll("_", " "))
            .join(", "),
    );
}

function sentence(text: string): string {
    const clean = plain(text).trim();
    if (clean === "") {
        return "No reason was given.";
    }
    return clean.charAt(0).toUpperCase() + clean.slice(1) + (/[.!?]$/u.test(clean) ? "" : ".");
}
