// Brings what is shown to where a player is: forward by what comes next, back by beginning anew. Whoever moves on meanwhile
// is followed after the piece that is being shown. Pure but for what the stage does.
import type { Tape } from "./tape";

export interface Stage {
    /** The first event that must be shown for the picture after so many. */
    start(tape: Tape, wanted: number): number;
    /** Nothing was told yet. */
    begin(): void;
    /** Shows these events; doesn't fail. */
    show(tape: Tape, from: number, to: number): Promise<void>;
    /** What was wanted is shown. */
    settle(): void;
}

/** Shown at once: so much is a moment's work. */
const SLICE_BYTES = 256 << 10;
const SLICE_EVENTS = 2000;
/** A player whose picture is so late waits for it. */
const LATE_MS = 250;

export class Pump {
    #tape: Tape | undefined;
    #told: Tape | undefined;
    #wanted = 0;
    #shown = 0;
    #runningSince: number | undefined;
    readonly #stage: Stage;
    readonly #now: () => number;

    constructor(stage: Stage, now: () => number) {
        this.#stage = stage;
        this.#now = now;
    }

    get isLate(): boolean {
        return this.#runningSince !== undefined && this.#now() - this.#runningSince > LATE_MS;
    }

    aim(tape: Tape, wanted: number): void {
        [this.#tape, this.#wanted] = [tape, wanted];
        if (this.#runningSince === undefined && !this.#isThere()) {
            void this.#run();
        }
    }

    async #run(): Promise<void> {
        this.#runningSince = this.#now();
        while (!this.#isThere()) {
            const [tape, wanted] = [this.#tape, this.#wanted];
            if (tape === undefined) {
                break;
            }
            const start = this.#stage.start(tape, wanted);
            if (tape !== this.#told || wanted < this.#shown || start > this.#shown) {
                this.#stage.begin();
                [this.#told, this.#shown] = [tape, start];
            }
            const to = slice(tape, this.#shown, wanted);
            await this.#stage.show(tape, this.#shown, to);
            this.#shown = to;
        }
        this.#runningSince = undefined;
        this.#stage.settle();
    }

    #isThere(): boolean {
        return this.#tape === this.#told && this.#wanted === this.#shown;
    }
}

function slice(tape: Tape, from: number, most: number): number {
    let [to, bytes] = [from, 0];
    while (to < most && to - from < SLICE_EVENTS && bytes < SLICE_BYTES) {
        bytes += tape.bytes(to).length;
        to += 1;
    }
    return to;
}
