// What the console's WebSocket carries beside its bytes: proto/src/console.rs has the same. Pure.

export const PATH = "/console/v1";
/** In the query: by which link a guest comes. */
export const LINK_QUERY = "link";
export const SUBPROTOCOL = "hx.console.v1";
/** Bytes of one message. */
export const MAX_MESSAGE = 64 << 10;

export interface Viewer {
    readonly console: string;
    readonly user: string;
    readonly inControl: boolean;
    readonly mayControl: boolean;
    readonly isYou: boolean;
    /** Of a guest: what the link's maker wrote of it. */
    readonly guest: string | undefined;
}

export interface Opened {
    readonly notice: "opened";
    readonly console: string;
    readonly vm: string;
    readonly vmDisplayName: string;
    readonly node: string;
    readonly inControl: boolean;
    readonly recorded: boolean;
}

export type Notice =
    | Opened
    | { readonly notice: "waiting"; readonly why: string }
    | { readonly notice: "restarted"; readonly node: string }
    | { readonly notice: "viewers"; readonly viewers: readonly Viewer[] }
    | { readonly notice: "control"; readonly inControl: boolean; readonly by: string };

export type Ask = { readonly ask: "takeControl" } | { readonly ask: "giveControl"; readonly to: string };

/** Undefined for what a newer controller says and this page doesn't know. */
export function readNotice(text: string): Notice | undefined {
    const found = parsed(text);
    switch (found?.["notice"]) {
        case "opened":
            return {
                notice: "opened",
                console: string(found["console"]),
                vm: string(found["vm"]),
                vmDisplayName: string(found["vmDisplayName"]),
                node: string(found["node"]),
                inControl: found["inControl"] === true,
                recorded: found["recorded"] === true,
            };
        case "waiting":
            return { notice: "waiting", why: string(found["why"]) };
        case "restarted":
            return { notice: "restarted", node: string(found["node"]) };
        case "viewers":
            return { notice: "viewers", viewers: Array.isArray(found["viewers"]) ? found["viewers"].flatMap(viewer) : [] };
        case "control":
            return { notice: "control", inControl: found["inControl"] === true, by: string(found["by"]) };
        default:
            return undefined;
    }
}

function viewer(found: unknown): Viewer[] {
    if (!isObject(found)) {
        return [];
    }
    return [
        {
            console: string(found["console"]),
            user: string(found["user"]),
            inControl: found["inControl"] === true,
            mayControl: found["mayControl"] === true,
            isYou: found["isYou"] === true,
            guest: typeof found["guest"] === "string" ? found["guest"] : undefined,
        },
    ];
}

function parsed(text: string): Record<string, unknown> | undefined {
    try {
        const found: unknown = JSON.parse(text);
        return isObject(found) ? found : undefined;
    } catch {
        return undefined;
    }
}

function isObject(found: unknown): found is Record<string, unknown> {
    return typeof found === "object" && found !== null;
}

function string(found: unknown): string {
    return typeof found === "string" ? found : "";
}
