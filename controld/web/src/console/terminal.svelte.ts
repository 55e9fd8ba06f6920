// xterm.js, with what the page sets. What a guest sends can draw, and can't do anything else: no links, no clipboard.
import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Terminal } from "@xterm/xterm";

import type { Channel } from "./channel";
import { isNobodyElsewhere } from "./focus";
import { Log } from "./log";
import { DARK, FONT, LIGHT } from "./theme";

/** Lines that can be scrolled back to. */
const SCROLLBACK = 10_000;

export class Line {
    readonly log = new Log();
    hasLog = $state(false);
    hasSelection = $state(false);
    readonly #terminal: Terminal;
    readonly #fit = new FitAddon();
    readonly #search = new SearchAddon();
    #channel: Channel | undefined;

    constructor() {
        this.#terminal = new Terminal({
            scrollback: SCROLLBACK,
            fontFamily: FONT,
            fontSize: 14,
            // Below that the row cuts off what is under the letters: an underscore.
            lineHeight: 1.2,
            minimumContrastRatio: 4.5,
            linkHandler: { activate: () => undefined },
            disableStdin: true,
        });
        this.#terminal.loadAddon(this.#fit);
        this.#terminal.loadAddon(this.#search);
        this.#terminal.onData((text) => {
            this.type(text);
        });
        this.#terminal.onBinary((text) => {
            this.#channel?.send(Uint8Array.from(text, (letter) => letter.charCodeAt(0)));
        });
        this.#terminal.onSelectionChange(() => {
            this.hasSelection = this.#terminal.hasSelection();
        });
    }

    /** Gives what takes it away again. */
    open(surface: HTMLElement): () => void {
        const dark = window.matchMedia("(prefers-color-scheme: dark)");
        const paint = (): void => {
            this.#terminal.options.theme = dark.matches ? DARK : LIGHT;
        };
        paint();
        dark.addEventListener("change", paint);
        this.#terminal.open(surface);
        const sized = new ResizeObserver(() => {
            this.#fit.fit();
        });
        sized.observe(surface);
        return () => {
            dark.removeEventListener("change", paint);
            sized.disconnect();
            this.#terminal.dispose();
        };
    }

    begin(channel: Channel): void {
        this.#channel = channel;
        channel.onmessage = ({ data }) => {
            const bytes = new Uint8Array(data);
            this.log.push(bytes);
            this.hasLog = true;
            this.#terminal.write(bytes);
        };
        if (isNobodyElsewhere()) {
            this.focus();
        }
    }

    set canType(can: boolean) {
        this.#terminal.options.disableStdin = !can;
    }

    /** As keys would. */
    type(text: string): void {
        this.#channel?.send(new TextEncoder().encode(text));
    }

    /** In brackets, where what runs in the guest has asked for them. */
    paste(text: string): void {
        this.#terminal.paste(text);
    }

    get selection(): string {
        return this.#terminal.getSelection();
    }

    /** Columns and lines. */
    get size(): { readonly columns: number; readonly lines: number } {
        return { columns: this.#terminal.cols, lines: this.#terminal.rows };
    }

    find(text: string, back: boolean): boolean {
        return back ? this.#search.findPrevious(text) : this.#search.findNext(text);
    }

    focus(): void {
        this.#terminal.focus();
    }
}
