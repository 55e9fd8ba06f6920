// Plays a tape on a stage: where it is, how fast, and what follows of the time that goes by.
import { IDLE_MS, type Speed, advance } from "./clock";
import { Pump, type Stage } from "./pump";
import type { Tape } from "./tape";

/** What a busy browser or one in the background has missed isn't caught up with. */
const LONGEST_STEP_MS = 250;

export class Player {
    /** In milliseconds since the beginning. */
    position = $state(0);
    duration = $state(0);
    playing = $state(false);
    speed = $state<Speed>(1);
    /** Of a long silence. */
    skipping = $state(true);
    /** The picture isn't there yet. */
    seeking = $state(false);
    #tape: Tape | undefined;
    #isWhole = false;
    readonly #pump: Pump;

    constructor(stage: Stage) {
        this.#pump = new Pump(stage, () => performance.now());
    }

    /** There is more of a tape, or another one. */
    feed(tape: Tape, isWhole: boolean): void {
        [this.#tape, this.#isWhole] = [tape, isWhole];
        this.duration = tape.duration;
        if (isWhole) {
            this.position = Math.min(this.position, this.duration);
        }
        this.#aim();
    }

    toggle(): void {
        if (!this.playing && this.#isWhole && this.position >= this.duration) {
            this.position = 0;
        }
        this.playing = !this.playing;
    }

    seek(at: number): void {
        this.position = Math.min(Math.max(0, at), this.duration);
        this.#aim();
    }

    /** Gives what ends it. */
    start(): () => void {
        let before = performance.now();
        let frame = 0;
        const tick = (now: number): void => {
            this.#step(Math.min(Math.max(0, now - before), LONGEST_STEP_MS));
            before = now;
            frame = requestAnimationFrame(tick);
        };
        frame = requestAnimationFrame(tick);
        return () => {
            cancelAnimationFrame(frame);
        };
    }

    #step(ms: number): void {
        this.seeking = this.#pump.isLate;
        const tape = this.#tape;
        if (!this.playing || tape === undefined || this.seeking) {
            return;
        }
        if (this.position < tape.duration) {
            this.position = advance(tape, this.position, ms * this.speed, this.skipping ? IDLE_MS : undefined);
            this.#aim();
        } else if (this.#isWhole) {
            this.playing = false;
        }
    }

    #aim(): void {
        if (this.#tape !== undefined) {
            this.#pump.aim(this.#tape, this.#tape.upTo(this.position));
        }
    }
}
