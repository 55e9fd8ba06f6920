// One console as its page shows it: asks for tickets, opens the WebSocket, and tells what is the case.
import { Privilege } from "../gen/horcrux/v1/authz_pb";
import { ConsoleKind, ConsoleMode } from "../gen/horcrux/v1/console_service_pb";
import { UNARY, consoles } from "../rpc/clients";
import { whoAmI } from "../rpc/session";
import { mayHoldOnVm } from "../state/rights";
import type { Address, Kind, Mode } from "./address";
import type { Channel } from "./channel";
import { Flow, NOTHING, type Picture, type Socket } from "./flow";
import type { Ending } from "./endings";
import { PATH, SUBPROTOCOL } from "./wire";

/** What a guest is told. Who is none has an account. */
export interface Guest {
    /** `user@realm`: whose guest. */
    readonly maker: string;
    readonly comment: string;
    readonly expiresMs: number;
    readonly recorded: boolean;
}

/** How a guest comes in. */
export interface Door {
    readonly guest: Guest;
    /** The WebSocket's. */
    readonly path: string;
    ticket(): Promise<string>;
    /** An ending in words for guests. */
    worded(ending: Ending): Ending;
}

export class Viewing {
    readonly address: Address;
    readonly flow: Flow;
    readonly guest: Guest | undefined;
    picture = $state.raw<Picture>(NOTHING);
    /** The user may let guests in here, as far as the page can know. */
    mayShare = $state(false);
    #begun: (channel: Channel) => void = () => undefined;

    constructor(address: Address, door?: Door) {
        this.address = address;
        this.guest = door?.guest;
        this.flow = new Flow({
            ticket: () => door?.ticket() ?? this.#ticket(),
            socket: () => socket(door?.path ?? PATH),
            worded: (ending) => door?.worded(ending) ?? ending,
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

    async #ticket(): Promise<string> {
        // The proof that this page asks is of the session, which may be another than before.
        const { held } = await whoAmI();
        const { uuid, kind, mode } = this.address;
        const vm = `vms/${uuid}`;
        this.mayShare = mayHoldOnVm(held, vm, Privilege.PERMISSIONS_MODIFY);
        const request = { vm, kind: wireKind(kind), mode: wireMode(mode), requestId: crypto.randomUUID() };
        return (await consoles.createTicket(request, UNARY)).ticket;
    }
}

export function wireKind(kind: Kind): ConsoleKind {
    return kind === "serial" ? ConsoleKind.SERIAL : ConsoleKind.VNC;
}

export function wireMode(mode: Mode): ConsoleMode {
    return mode === "view" ? ConsoleMode.VIEW : ConsoleMode.CONTROL;
}

function socket(path: string): Socket {
    const { protocol, host } = window.location;
    const real: unknown = new WebSocket(`${protocol === "http:" ? "ws" : "wss"}://${host}${path}`, [SUBPROTOCOL]);
    // Its handlers are given more than ours take, which the types don't allow.
    return real as Socket;
}
