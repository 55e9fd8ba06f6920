// A console's bytes, as the WebSocket that noVNC expects: on one real WebSocket there are several, one after the other, for
// when a VM was moved its screen begins a new conversation.
import { MAX_MESSAGE } from "./wire";

type State = "connecting" | "open" | "closing" | "closed";
type Heard = (event: { readonly data: ArrayBuffer }) => void;
type Closed = (event: { readonly code: number; readonly reason: string }) => void;

export class Channel {
    binaryType = "arraybuffer";
    readonly protocol = "";
    readyState: State = "open";
    onopen: (() => void) | null = null;
    onerror: (() => void) | null = null;
    onclose: Closed | null = null;

    #onmessage: Heard | null = null;
    /** Came before anybody listened. */
    #early: ArrayBuffer[] = [];
    readonly #put: (bytes: Uint8Array<ArrayBuffer>) => void;

    constructor(put: (bytes: Uint8Array<ArrayBuffer>) => void) {
        this.#put = put;
    }

    get onmessage(): Heard | null {
        return this.#onmessage;
    }

    set onmessage(heard: Heard | null) {
        this.#onmessage = heard;
        // Not at once: whoever listens is still being made.
        queueMicrotask(() => {
            this.#tellEarly();
        });
    }

    send(bytes: Uint8Array): void {
        if (this.readyState !== "open") {
            return;
        }
        for (let at = 0; at < bytes.length; at += MAX_MESSAGE) {
            // A copy, for its owner writes over it.
            this.#put(bytes.slice(at, at + MAX_MESSAGE));
        }
    }

    /** Only this conversation: the WebSocket stays. */
    close(): void {
        this.end(1000, "");
    }

    hear(bytes: ArrayBuffer): void {
        if (this.readyState !== "open") {
            return;
        }
        if (this.#onmessage === null || this.#early.length > 0) {
            this.#early.push(bytes);
        } else {
            this.#onmessage({ data: bytes });
        }
    }

    end(code: number, reason: string): void {
        if (this.readyState === "closed") {
            return;
        }
        this.readyState = "closed";
        this.#early = [];
        queueMicrotask(() => this.onclose?.({ code, reason }));
    }

    #tellEarly(): void {
        const early = this.#early;
        this.#early = [];
        for (const data of early) {
            this.#onmessage?.({ data });
        }
    }
}
