// Links for guests, as the page of a console makes and shows them.
import { ConsoleKind, ConsoleMode } from "../gen/horcrux/v1/console_service_pb";
import type { GuestLink } from "../gen/horcrux/v1/guest_link_service_pb";
import { UNARY, guestLinks } from "../rpc/clients";
import { plain } from "../words/text";
import type { Address, Kind, Mode } from "./address";
import { wireKind, wireMode } from "./viewing.svelte";

const HOUR = 3600;

/** How long a link may work. */
export const TIMES: readonly { readonly seconds: number; readonly title: string }[] = [
    { seconds: HOUR / 4, title: "15 minutes" },
    { seconds: HOUR, title: "1 hour" },
    { seconds: 4 * HOUR, title: "4 hours" },
    { seconds: 24 * HOUR, title: "1 day" },
    { seconds: 7 * 24 * HOUR, title: "7 days" },
];

export interface Share {
    readonly kind: Kind;
    readonly mode: Mode;
    readonly seconds: number;
    readonly comment: string;
}

/** Gives the whole link, which is shown this once. */
export async function share({ uuid }: Address, { kind, mode, seconds, comment }: Share): Promise<string> {
    const request = {
        vm: `vms/${uuid}`,
        kind: wireKind(kind),
        mode: wireMode(mode),
        ttlSeconds: seconds,
        comment,
        requestId: crypto.randomUUID(),
    };
    return (await guestLinks.create(request, UNARY)).url;
}

export async function shared({ uuid }: Address): Promise<readonly GuestLink[]> {
    return (await guestLinks.list({ vm: `vms/${uuid}` }, UNARY)).links;
}

export async function revoke({ name }: GuestLink): Promise<void> {
    await guestLinks.revoke({ name, requestId: crypto.randomUUID() }, UNARY);
}

/** `serial line, only looking, of alice@local`. */
export function told({ kind, mode, maker }: GuestLink): string {
    const what = kind === ConsoleKind.SERIAL ? "serial line" : "screen";
    return `${what}, ${mode === ConsoleMode.VIEW ? "only looking" : "with keys"}, by ${plain(maker)}`;
}

/** A moment as people near it say it. */
export function moment(ms: number, now = Date.now()): string {
    const at = new Date(ms);
    const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    return at.toDateString() === new Date(now).toDateString()
        ? time
        : `${at.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" })}, ${time}`;
}
