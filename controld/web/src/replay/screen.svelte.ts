// A recorded screen in noVNC, which is told what the VM said then; what it answers goes nowhere. One noVNC shows one
// conversation: another begins, or somebody went back, and the next takes its place once it shows what is wanted.
import RFB from "@novnc/novnc";

import { Channel } from "../console/channel";
import { Conversation, Untold } from "./conversation";
import type { Stage } from "./pump";
import { swapColours } from "./swap";
import type { Tape } from "./tape";

/** Then others get their turn. */
const TURN_MS = 12;
/** A picture that a browser can't decode in so long it never will. */
const DECODED_WITHIN_MS = 5000;

interface Told {
    readonly layer: HTMLElement;
    readonly conversation: Conversation;
    rfb: RFB | undefined;
    channel: Channel | undefined;
    /** Why nothing more of it can be shown. */
    trouble: string;
}

export class ScreenStage implements Stage {
    /** Why nothing is shown, or not what was there then. */
    trouble = $state("");
    #fits = true;
    #surface: HTMLElement | undefined;
    /** What is seen. */
    #seen: Told | undefined;
    /** What is told. */
    #told: Told | undefined;

    /** Gives what takes it away again. */
    open(surface: HTMLElement): () => void {
        this.#surface = surface;
        return () => {
            this.#drop(this.#seen);
            this.#drop(this.#told);
        };
    }

    set fits(fits: boolean) {
        this.#fits = fits;
        for (const told of [this.#seen, this.#told]) {
            if (told?.rfb !== undefined) {
                told.rfb.scaleViewport = fits;
            }
        }
    }

    start(tape: Tape, wanted: number): number {
        return tape.lastAnew(wanted) ?? 0;
    }

    begin(): void {
        if (this.#told !== this.#seen) {
            this.#drop(this.#told);
        }
        const layer = document.createElement("div");
        layer.className = "layer";
        layer.dataset["told"] = "";
        this.#surface?.append(layer);
        this.#told = { layer, conversation: new Conversation(), rfb: undefined, channel: undefined, trouble: "" };
    }

    async show(tape: Tape, from: number, to: number): Promise<void> {
        let began = performance.now();
        for (let index = from; index < to; index += 1) {
            await this.#event(tape, index);
            if (performance.now() - began > TURN_MS) {
                await new Promise((resolve) => setTimeout(resolve));
                began = performance.now();
            }
        }
        const told = this.#told;
        if (told?.rfb !== undefined && told.trouble === "") {
            await this.#drawn(told, told.rfb._display.flush());
        }
    }

    settle(): void {
        if (this.#seen !== this.#told) {
            this.#drop(this.#seen);
            this.#seen = this.#told;
            delete this.#seen?.layer.dataset["told"];
        }
        this.trouble = this.#seen?.trouble ?? "";
    }

    async #event(tape: Tape, index: number): Promise<void> {
        const kind = tape.kind(index);
        if (kind === "anew") {
            this.begin();
        }
        const told = this.#told;
        if (told === undefined || told.trouble !== "") {
            return;
        }
        if (kind === "lost") {
            told.trouble = "Bytes are missing from here on: this is the last picture that is known to be right, until the screen was opened anew.";
            return;
        }
        try {
            if (kind === "wish") {
                told.conversation.wish(tape.bytes(index));
            } else if (kind === "said") {
                for (const heard of told.conversation.said(tape.bytes(index))) {
                    this.#hear(told, heard);
                }
                while (told.rfb?._flushing === true && !isTroubled(told)) {
                    await this.#drawn(told, told.rfb._display.flush());
                }
            }
        } catch (error) {
            this.#fails(told, error instanceof Untold ? `${error.message}.` : UNREADABLE);
        }
    }

    #hear(told: Told, bytes: Uint8Array): void {
        if (isTroubled(told)) {
            return;
        }
        if (told.rfb === undefined) {
            this.#meet(told);
        }
        if (told.rfb !== undefined && told.conversation.order === "bgr") {
            swapColours(told.rfb);
        }
        told.channel?.hear(bytes.slice().buffer);
    }

    /** noVNC comes in when the first is to be told. */
    #meet(told: Told): void {
        const channel = new Channel(() => undefined);
        const rfb = new RFB(told.layer, channel, { shared: true });
        [told.rfb, told.channel] = [rfb, channel];
        rfb.viewOnly = true;
        rfb.focusOnClick = false;
        rfb.background = "transparent";
        rfb.scaleViewport = this.#fits;
        rfb.addEventListener("disconnect", ({ detail }) => {
            if (!detail.clean) {
                this.#fails(told, UNREADABLE);
            }
        });
        rfb.addEventListener("credentialsrequired", () => {
            this.#fails(told, UNREADABLE);
        });
    }

    async #drawn(told: Told, flushed: Promise<void>): Promise<void> {
        let timer: ReturnType<typeof setTimeout> | undefined;
        const late = new Promise<"late">((resolve) => {
            timer = setTimeout(() => {
                resolve("late");
            }, DECODED_WITHIN_MS);
        });
        if ((await Promise.race([flushed, late])) === "late") {
            this.#fails(told, UNREADABLE);
        }
        clearTimeout(timer);
    }

    #fails(told: Told, words: string): void {
        if (told.trouble === "") {
            told.trouble = [words, told.conversation.foreign].filter((text) => text !== "").join(" ");
        }
    }

    #drop(told: Told | undefined): void {
        if (told !== undefined) {
            told.trouble ||= "Over.";
            told.rfb?.disconnect();
            told.layer.remove();
        }
    }
}

const UNREADABLE = "From here on the recording holds no picture that this page understands.";

function isTroubled({ trouble }: Told): boolean {
    return trouble !== "";
}
