// A recorded serial line in xterm.js. What a guest sent can draw, and can't do anything else: no links, no clipboard.
import "@xterm/xterm/css/xterm.css";

import { Terminal } from "@xterm/xterm";

import { DARK, FONT, LIGHT } from "../console/theme";
import type { Size } from "./cast";
import type { Stage } from "./pump";
import type { Tape } from "./tape";

const SCROLLBACK = 10_000;
const USUAL_PX = 14;
const SMALLEST_PX = 4;
const LARGEST_PX = 32;
/** Of its surface it leaves so much for its margin and the bar to scroll by. */
const MARGIN_PX = 24;
/** Ends whatever sequence has begun, and then resets all. */
const ANEW = "\u0018\u001Bc";

export class LineStage implements Stage {
    #fits = true;
    #surface: HTMLElement | undefined;
    readonly #terminal = new Terminal({
        scrollback: SCROLLBACK,
        fontFamily: FONT,
        fontSize: USUAL_PX,
        minimumContrastRatio: 4.5,
        linkHandler: { activate: () => undefined },
        disableStdin: true,
    });

    /** Gives what takes it away again. */
    open(surface: HTMLElement): () => void {
        this.#surface = surface;
        const dark = window.matchMedia("(prefers-color-scheme: dark)");
        const paint = (): void => {
            this.#terminal.options.theme = dark.matches ? DARK : LIGHT;
        };
        paint();
        dark.addEventListener("change", paint);
        this.#terminal.open(surface);
        const sized = new ResizeObserver(() => {
            this.#scale();
        });
        sized.observe(surface);
        return () => {
            dark.removeEventListener("change", paint);
            sized.disconnect();
            this.#terminal.dispose();
        };
    }

    set size({ columns, lines }: Size) {
        if (columns !== this.#terminal.cols || lines !== this.#terminal.rows) {
            this.#terminal.resize(columns, lines);
            this.#scale();
        }
    }

    set fits(fits: boolean) {
        this.#fits = fits;
        this.#scale();
    }

    start(): number {
        return 0;
    }

    begin(): void {
        this.#terminal.write(ANEW);
    }

    async show(tape: Tape, from: number, to: number): Promise<void> {
        const pieces: Uint8Array[] = [];
        for (let index = from; index < to; index += 1) {
            if (tape.kind(index) === "said") {
                pieces.push(tape.bytes(index));
            }
        }
        const all = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
        let at = 0;
        for (const piece of pieces) {
            all.set(piece, at);
            at += piece.length;
        }
        await new Promise<void>((resolve) => {
            this.#terminal.write(all, resolve);
        });
    }

    settle(): void {
        // Each write is shown by itself.
    }

    /** All its columns and lines are in sight, as large as there is room. */
    #scale(): void {
        const [surface, drawn] = [this.#surface, this.#terminal.element?.querySelector(".xterm-screen")];
        const now = this.#terminal.options.fontSize ?? USUAL_PX;
        let next = USUAL_PX;
        if (this.#fits && surface !== undefined && drawn instanceof HTMLElement && drawn.clientWidth > 0 && drawn.clientHeight > 0) {
            const [width, height] = [surface.clientWidth - MARGIN_PX, surface.clientHeight - MARGIN_PX / 2];
            const times = Math.min(width / drawn.clientWidth, height / drawn.clientHeight);
            next = Math.min(LARGEST_PX, Math.max(SMALLEST_PX, Math.floor(now * times * 2) / 2));
        }
        if (next !== now) {
            this.#terminal.options.fontSize = next;
        }
    }
}
