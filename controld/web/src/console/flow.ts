// A console from its ticket to its end, and again.
//
//   ticket ──▶ opening ──▶ open ◀──▶ waiting        the VM is being moved
//     ▲           │          │          │
//     │           ▼          ▼          ▼
//   pausing ◀── an end that may pass: by itself, after a pause
//     ▲
//   ended ◀──── any other end: when it is asked to
import { backoff } from "../rpc/follow";
import { Channel } from "./channel";
import { type Ending, ofClose, ofGarbled, ofTicket } from "./endings";
import { type Ask, type Notice, type Opened, type Viewer, readNotice } from "./wire";

export type Stage =
    | { readonly at: "ticket" | "opening" | "open" }
    | { readonly at: "waiting"; readonly why: string }
    | { readonly at: "pausing"; readonly ending: Ending; readonly ms: number }
    | { readonly at: "ended"; readonly ending: Ending };

export interface Picture {
    readonly stage: Stage;
    /** What was last opened: it stays when that has ended. */
    readonly opened: Opened | undefined;
    /** Where the VM is, `nodes/{node}`. */
    readonly node: string;
    readonly inControl: boolean;
    readonly viewers: readonly Viewer[];
}

/** What is used of a WebSocket. */
export interface Socket {
    binaryType: string;
    onopen: (() => void) | null;
    onmessage: ((event: { readonly data: unknown }) => void) | null;
    onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null;
    send(data: string | Uint8Array<ArrayBuffer>): void;
    close(code?: number): void;
}

export interface Outside {
    ticket(): Promise<string>;
    socket(): Socket;
    /** A conversation begins, and the one before is over. */
    begun(channel: Channel): void;
    changed(picture: Picture): void;
    /** An ending in the words that suit who looks. */
    worded?: (ending: Ending) => Ending;
    random?: () => number;
}

/** A console that lasted this long was there: the next pause is a short one again. */
const LASTED_MS = 10_000;

/** Whose bytes still come after so long wasn't moved after all. */
const MOVED_MS = 3000;

export const NOTHING: Picture = { stage: { at: "ticket" }, opened: undefined, node: "", inControl: false, viewers: [] };

export class Flow {
    #picture: Picture = NOTHING;
    #socket: Socket | undefined;
    #channel: Channel | undefined;
    #pause: ReturnType<typeof setTimeout> | undefined;
    #failures = 0;
    #openedMs: number | undefined;
    #waitingMs = 0;
    /** What an earlier attempt still brings is nobody's. */
    #attempt = 0;
    readonly #outside: Outside;

    constructor(outside: Outside) {
        this.#outside = outside;
    }

    get picture(): Picture {
        return this.#picture;
    }

    /** Begins, or begins anew without waiting for the pause to end. */
    start(): void {
        this.#leave();
        void this.#run(this.#attempt);
    }

    stop(): void {
        this.#leave();
        this.#change({ stage: { at: "ended", ending: ofClose(1000, "") }, viewers: [] });
    }

    /** Doesn't wait for a pause to end, for instance because the network is back. */
    hurry(): void {
        if (this.#picture.stage.at === "pausing") {
            this.start();
        }
    }

    ask(ask: Ask): void {
        if (this.#picture.stage.at === "open") {
            this.#socket?.send(JSON.stringify(ask));
        }
    }

    /** Whoever shows this conversation can't go on. One that is over has been told of already. */
    garbled(channel: Channel, what: string): void {
        if (channel !== this.#channel) {
            return;
        }
        this.#leave();
        this.#end(ofGarbled(what));
    }

    #leave(): void {
        this.#attempt += 1;
        clearTimeout(this.#pause);
        const socket = this.#socket;
        this.#socket = undefined;
        this.#drop(1000, "");
        if (socket !== undefined) {
            socket.onopen = socket.onmessage = socket.onclose = null;
            socket.close(1000);
        }
    }

    async #run(attempt: number): Promise<void> {
        this.#change({ stage: { at: "ticket" }, viewers: [], inControl: false });
        let ticket: string;
        try {
            ticket = await this.#outside.ticket();
        } catch (error) {
            if (attempt === this.#attempt) {
                this.#end(ofTicket(error));
            }
            return;
        }
        if (attempt !== this.#attempt) {
            return;
        }
        this.#change({ stage: { at: "opening" } });
        const socket = this.#outside.socket();
        this.#socket = socket;
        socket.binaryType = "arraybuffer";
        socket.onopen = () => {
            socket.send(ticket);
        };
        socket.onmessage = ({ data }) => {
            if (data instanceof ArrayBuffer) {
                this.#bytes(data);
            } else if (typeof data === "string") {
                this.#notice(readNotice(data));
            }
        };
        socket.onclose = ({ code, reason }) => {
            this.#socket = undefined;
            this.#drop(code, reason);
            this.#end(ofClose(code, reason));
        };
    }

    #bytes(data: ArrayBuffer): void {
        this.#channel?.hear(data);
        if (this.#picture.stage.at === "waiting" && Date.now() - this.#waitingMs >= MOVED_MS) {
            this.#change({ stage: { at: "open" } });
        }
    }

    #notice(notice: Notice | undefined): void {
        switch (notice?.notice) {
            case "opened":
                this.#openedMs = Date.now();
                this.#change({ stage: { at: "open" }, opened: notice, node: notice.node, inControl: notice.inControl });
                this.#begin();
                break;
            case "waiting":
                this.#waitingMs = Date.now();
                this.#change({ stage: { at: "waiting", why: notice.why } });
                break;
            case "restarted":
                this.#change({ stage: { at: "open" }, node: notice.node });
                this.#begin();
                break;
            case "viewers":
                this.#change({ viewers: notice.viewers });
                break;
            case "control":
                this.#change({ inControl: notice.inControl });
                break;
            case undefined:
                break;
        }
    }

    #begin(): void {
        this.#drop(1000, "");
        const socket = this.#socket;
        const channel = new Channel((bytes) => socket?.send(bytes));
        this.#channel = channel;
        this.#outside.begun(channel);
    }

    #drop(code: number, reason: string): void {
        this.#channel?.end(code, reason);
        this.#channel = undefined;
    }

    #end(plainly: Ending): void {
        const ending = this.#outside.worded?.(plainly) ?? plainly;
        const lasted = this.#openedMs !== undefined && Date.now() - this.#openedMs >= LASTED_MS;
        this.#openedMs = undefined;
        this.#failures = lasted ? 0 : this.#failures + 1;
        if (ending.next !== "again") {
            this.#failures = 0;
            this.#change({ stage: { at: "ended", ending }, viewers: [], inControl: false });
            return;
        }
        const ms = backoff(this.#failures, (this.#outside.random ?? Math.random)());
        this.#change({ stage: { at: "pausing", ending, ms }, viewers: [], inControl: false });
        this.#pause = setTimeout(() => {
            this.start();
        }, ms);
    }

    #change(what: Partial<Picture>): void {
        this.#picture = { ...this.#picture, ...what };
        this.#outside.changed(this.#picture);
    }
}
