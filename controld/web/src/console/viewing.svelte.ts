// One console as its page shows it: asks for tickets, opens the WebSocket, and tells what is the case.
import { ConsoleKind, ConsoleMode } from "../gen/horcrux/v1/console_service_pb";
import { UNARY, consoles } from "../rpc/clients";
import { whoAmI } from "../rpc/session";
import type { Address } from "./address";
import type { Channel } from "./channel";
import { Flow, NOTHING, type Picture, type Socket } from "./flow";
import { PATH, SUBPROTOCOL } from "./wire";

export class Viewing {
    readonly address: Address;
    readonly flow: Flow;
    picture = $state.raw<Picture>(NOTHING);
    #begun: (channel: Channel) => void = () => undefined;

    constructor(address: Address) {
        this.address = address;
        this.flow = new Flow({
            ticket: () => ticket(address),
            socket,
            begun: (channel) => {
                this.#begun(channel);
            },
            changed: (picture) => {
                this.picture = picture;
            },
        });
    }

    /** What is typed here reaches the VM. */
    get hasKeys(): boolean {
        return this.address.mode === "control" && this.picture.inControl && this.picture.stage.at === "open";
    }

    /** Opens it, with who shows each conversation. */
    start(begun: (channel: Channel) => void): void {
        this.#begun = begun;
        this.flow.start();
    }
}

async function ticket({ uuid, kind, mode }: Address): Promise<string> {
    // The proof that this page asks is of the session, which may be another than before.
    await whoAmI();
    const request = {
        vm: `vms/${uuid}`,
        kind: kind === "serial" ? ConsoleKind.SERIAL : ConsoleKind.VNC,
        mode: mode === "view" ? ConsoleMode.VIEW : ConsoleMode.CONTROL,
        requestId: crypto.randomUUID(),
    };
    return (await consoles.createTicket(request, UNARY)).ticket;
}

function socket(): Socket {
    const { protocol, host } = window.location;
    const real: unknown = new WebSocket(`${protocol === "http:" ? "ws" : "wss"}://${host}${PATH}`, [SUBPROTOCOL]);
    // Its handlers are given more than ours take, which the types don't allow.
    return real as Socket;
}
