// A person's sessions, API tokens and privileges, in words.
import type { HeldPrivileges, Session } from "../gen/horcrux/v1/auth_service_pb";
import type { ApiToken } from "../gen/horcrux/v1/token_service_pb";
import { agent } from "../words/agent";
import { moment } from "../words/quantity";
import { plain } from "../words/text";
import { privilegeName } from "./rights";

/** This one first, and then as they were used. */
export function inOrder(sessions: readonly Session[]): readonly Session[] {
    return [...sessions].sort(
        (one, other) => Number(other.current) - Number(one.current) || Number(other.lastUsedUnixMs - one.lastUsedUnixMs),
    );
}

export function client(session: Session): string {
    return agent(session.client) || "A client that doesn't say what it is";
}

export function sessionFacts(session: Session): readonly string[] {
    return [
        `from ${plain(session.source) || "an unknown address"}`,
        `opened ${moment(Number(session.createdUnixMs))}`,
        `last used ${moment(Number(session.lastUsedUnixMs))}`,
        `ends ${moment(Number(session.expiresUnixMs))} at the latest`,
    ];
}

export function tokenFacts(token: ApiToken, nowMs: number): readonly string[] {
    const expires = Number(token.expiresUnixMs);
    return [
        plain(token.id),
        `${expires > nowMs ? "expires" : "expired"} ${moment(expires)}`,
        token.lastUsedUnixMs === undefined
            ? "never used"
            : `last used ${moment(Number(token.lastUsedUnixMs))}${from(token.lastUsedFrom)}`,
        ...(token.networks.length === 0 ? [] : [`works from ${token.networks.map(plain).join(", ")} only`]),
    ];
}

export function tokenGrants(token: ApiToken): string {
    if (token.full) {
        return "May do all that you may.";
    }
    if (token.grants.length === 0) {
        return "May do nothing: it has no grant.";
    }
    const each = token.grants.map(
        ({ role, path, propagate, notAfterUnixMs }) =>
            `${plain(role)} on ${plain(path)}${below(path, propagate)}${
                notAfterUnixMs === undefined ? "" : ` until ${moment(Number(notAfterUnixMs))}`
            }`,
    );
    return `May do what you may, within ${each.join("; ")}.`;
}

export interface Holding {
    readonly path: string;
    readonly where: string;
    readonly privileges: string;
}

/** Sorted, as names are. */
export function holdings(held: readonly HeldPrivileges[]): readonly Holding[] {
    return held
        .filter(({ privileges }) => privileges.length > 0)
        .map(({ path, privileges, propagate }) => ({
            path,
            where: `${plain(path)}${below(path, propagate)}`,
            privileges: privileges.map(privilegeName).sort().join(" "),
        }))
        .sort((one, other) => (one.path < other.path ? -1 : 1));
}

function below(path: string, propagate: boolean): string {
    if (path.includes("?")) {
        return "";
    }
    return propagate ? " and below" : " alone";
}

function from(address: string | undefined): string {
    return address === undefined || address === "" ? "" : ` from ${plain(address)}`;
}
