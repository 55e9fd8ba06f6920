// noVNC, one conversation after the other, with what the page has set and what the guest has told.
import RFB from "@novnc/novnc";

import { CONSOLE_QUALITY, CONSOLE_SIZE, lasting } from "../state/kept";
import type { Channel } from "./channel";
import { isNobodyElsewhere } from "./focus";
import { type Key, MODIFIERS, type Stroke } from "./keys";
import { type Quality, qualityOf } from "./quality";

/** What a guest may put into its clipboard and this page keeps. */
const LONGEST_CLIPBOARD = 1 << 20;

export class Rfb {
    /** The conversation has begun: what is seen is the guest's. */
    drawn = $state(false);
    /** What the guest calls its screen. */
    guestName = $state("");
    /** What the guest last copied. */
    copied = $state("");
    /** Modifiers that stay down, by their code. */
    held = $state.raw<ReadonlySet<string>>(new Set());
    fits = $state(lasting.get(CONSOLE_SIZE) !== "own");
    quality = $state.raw<Quality>(qualityOf(lasting.get(CONSOLE_QUALITY)));

    #canType = false;
    #rfb: RFB | undefined;

    begin(surface: HTMLElement, channel: Channel, garbled: (what: string) => void): void {
        this.#leave();
        const rfb = new RFB(surface, channel, { shared: true });
        this.#rfb = rfb;
        rfb.background = "transparent";
        const mine = (act: () => void) => (): void => {
            if (this.#rfb === rfb) {
                act();
            }
        };
        rfb.addEventListener(
            "connect",
            mine(() => {
                this.drawn = true;
                if (isNobodyElsewhere()) {
                    rfb.focus({ preventScroll: true });
                }
            }),
        );
        rfb.addEventListener("disconnect", ({ detail }) => {
            mine(() => {
                this.#over();
                if (!detail.clean) {
                    garbled("");
                }
            })();
        });
        rfb.addEventListener("credentialsrequired", mine(() => {
            garbled("The screen asks for a password, which the controller should have given.");
        }));
        rfb.addEventListener("desktopname", ({ detail }) => {
            this.guestName = detail.name;
        });
        rfb.addEventListener("clipboard", ({ detail }) => {
            this.copied = detail.text.slice(0, LONGEST_CLIPBOARD);
        });
        this.#set();
    }

    get canType(): boolean {
        return this.#canType;
    }

    set canType(can: boolean) {
        this.#canType = can;
        if (!can) {
            this.held = new Set();
        }
        this.#set();
    }

    focus(): void {
        this.#rfb?.focus({ preventScroll: true });
    }

    stroke({ keysym, code, down }: Stroke): void {
        this.#rfb?.sendKey(keysym, code, down);
    }

    /** Down until it is held no more. */
    hold(key: Key): void {
        const held = new Set(this.held);
        const down = !held.delete(key.code);
        if (down) {
            held.add(key.code);
        }
        this.held = held;
        this.stroke({ ...key, down });
    }

    letGo(): void {
        for (const { key } of MODIFIERS) {
            if (this.held.has(key.code)) {
                this.hold(key);
            }
        }
    }

    /** Into the guest's clipboard, where something in the guest takes it. */
    copyIn(text: string): void {
        this.#rfb?.clipboardPasteFrom(text);
    }

    fit(fits: boolean): void {
        this.fits = fits;
        lasting.put(CONSOLE_SIZE, fits ? "fit" : "own");
        this.#set();
    }

    choose(id: string): void {
        this.quality = qualityOf(id);
        lasting.put(CONSOLE_QUALITY, this.quality.id);
        this.#set();
    }

    #set(): void {
        const rfb = this.#rfb;
        if (rfb !== undefined) {
            rfb.viewOnly = !this.#canType;
            rfb.scaleViewport = this.fits;
            rfb.qualityLevel = this.quality.picture;
            rfb.compressionLevel = this.quality.compression;
        }
    }

    #leave(): void {
        const rfb = this.#rfb;
        this.#over();
        rfb?.disconnect();
    }

    #over(): void {
        this.#rfb = undefined;
        this.drawn = false;
        this.held = new Set();
    }
}
