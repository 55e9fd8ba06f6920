// What a guest's page may call: three methods, by the link's secret or its cookie.
import { createClient } from "@connectrpc/connect";

import { type GuestConsole, GuestLinkService } from "../gen/horcrux/v1/guest_link_service_pb";
import { UNARY } from "../rpc/clients";
import { transport } from "../rpc/transport";

const LINK_HEADER = "x-horcrux-link";

/** By the secret; the browser gets the link's cookie. */
export async function open(secret: string): Promise<GuestConsole | undefined> {
    return (await client("").open({ secret }, UNARY)).console;
}

export async function get(id: string): Promise<GuestConsole | undefined> {
    return (await client(id).get({}, UNARY)).console;
}

export async function ticket(id: string): Promise<string> {
    return (await client(id).createTicket({ requestId: crypto.randomUUID() }, UNARY)).ticket;
}

function client(id: string) {
    const wire = transport((header) => {
        if (id !== "") {
            header.set(LINK_HEADER, id);
        }
    });
    return createClient(GuestLinkService, wire);
}
