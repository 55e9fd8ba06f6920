// What is kept of a recording while it is replayed: its events in order, in a few large pieces. Pure.

export const KINDS = ["said", "typed", "wish", "anew", "lost", "note"] as const;
/** `wish`: how the viewer wanted the picture. `anew`, `lost` and `note` hold words for people. */
export type Kind = (typeof KINDS)[number];

export interface Mark {
    /** In milliseconds since the beginning. */
    readonly at: number;
    readonly kind: Kind;
    readonly text: string;
    /** Of its event. */
    readonly index: number;
}

/** Bytes that a page holds at most, events and what is known of each. */
export const MOST = 256 << 20;
/** Marks that are told one by one. */
const MOST_MARKS = 500;
const BLOCK = 1 << 20;
/** What is known of one event: its columns below. */
const EVENT = 21;
/** What is known of one link. */
const SEAL = 16;

export class Tape {
    readonly #most: number;
    #at = new Float64Array(1024);
    #kind = new Uint8Array(1024);
    #block = new Uint32Array(1024);
    #start = new Uint32Array(1024);
    #length = new Uint32Array(1024);
    #count = 0;
    #blocks: Uint8Array[] = [];
    /** Of the last block. */
    #filled = 0;
    #kept = 0;
    #marks: Mark[] = [];
    #typed: number[] = [];
    #anew: number[] = [];
    /** Where links stand: the byte after each, and how many events are before it. */
    #seals: number[] = [];
    #covered: number[] = [];
    #isFull = false;

    constructor(most = MOST) {
        this.#most = most;
    }

    get count(): number {
        return this.#count;
    }

    /** There is more than is kept. */
    get isFull(): boolean {
        return this.#isFull;
    }

    get marks(): readonly Mark[] {
        return this.#marks;
    }

    /** Until its last event. */
    get duration(): number {
        return this.#count === 0 ? 0 : this.at(this.#count - 1);
    }

    /** What comes after something later counts as of the same moment: two that write at once are a little out of order. */
    add(at: number, kind: Kind, bytes: Uint8Array): void {
        if (this.#isFull || this.#kept + bytes.length + EVENT > this.#most) {
            this.#isFull = true;
            return;
        }
        if (this.#count === this.#at.length) {
            this.#grow();
        }
        const index = this.#count;
        this.#at[index] = Math.max(at, this.duration);
        this.#kind[index] = KINDS.indexOf(kind);
        this.#place(index, bytes);
        this.#count += 1;
        this.#kept += bytes.length + EVENT;
        if (kind === "anew") {
            this.#anew.push(index);
        }
        if (kind === "typed") {
            this.#typed.push(index);
        } else if (kind !== "said" && kind !== "wish" && this.#marks.length < MOST_MARKS) {
            // Another list, for whoever shows the one before.
            this.#marks = [...this.#marks, { at: this.at(index), kind, text: new TextDecoder().decode(bytes), index }];
        }
    }

    /** A link stands here: this is the byte after it. */
    seal(offset: number): void {
        if (!this.#isFull) {
            this.#seals.push(offset);
            this.#covered.push(this.#count);
            this.#kept += SEAL;
        }
    }

    /** What is behind the last link up to this byte goes. */
    cut(offset: number): void {
        const seals = countUpTo(this.#seals.length, (index) => this.#seals[index] ?? 0, offset);
        this.#count = seals === 0 ? 0 : (this.#covered[seals - 1] ?? 0);
        this.#marks = this.#marks.filter(({ index }) => index < this.#count);
        this.#typed = this.#typed.filter((index) => index < this.#count);
        this.#anew = this.#anew.filter((index) => index < this.#count);
    }

    at(index: number): number {
        return this.#at[index] ?? 0;
    }

    kind(index: number): Kind {
        return KINDS[this.#kind[index] ?? 0] ?? "said";
    }

    bytes(index: number): Uint8Array {
        const start = this.#start[index] ?? 0;
        return (this.#blocks[this.#block[index] ?? 0] ?? new Uint8Array()).subarray(start, start + (this.#length[index] ?? 0));
    }

    /** How many events there are up to a moment. */
    upTo(at: number): number {
        return countUpTo(this.#count, (index) => this.at(index), at);
    }

    /** Where the last conversation before an event begins, unless that is the first. */
    lastAnew(before: number): number | undefined {
        const count = countUpTo(this.#anew.length, (place) => this.#anew[place] ?? 0, before - 1);
        return this.#anew[count - 1];
    }

    /** The last that was typed before an event: at most so many pieces. */
    typed(before: number, most: number): string {
        const end = countUpTo(this.#typed.length, (place) => this.#typed[place] ?? 0, before - 1);
        const pieces = this.#typed.slice(Math.max(0, end - most), end);
        return pieces.map((index) => new TextDecoder().decode(this.bytes(index))).join("");
    }

    #place(index: number, bytes: Uint8Array): void {
        let last = this.#blocks.at(-1);
        if (last === undefined || this.#filled + bytes.length > last.length) {
            last = new Uint8Array(Math.max(BLOCK, bytes.length));
            this.#blocks.push(last);
            this.#filled = 0;
        }
        last.set(bytes, this.#filled);
        this.#block[index] = this.#blocks.length - 1;
        this.#start[index] = this.#filled;
        this.#length[index] = bytes.length;
        this.#filled += bytes.length;
    }

    #grow(): void {
        const room = this.#at.length * 2;
        const wide = (from: Uint32Array): Uint32Array<ArrayBuffer> => {
            const to = new Uint32Array(room);
            to.set(from);
            return to;
        };
        const [at, kind] = [new Float64Array(room), new Uint8Array(room)];
        at.set(this.#at);
        kind.set(this.#kind);
        [this.#at, this.#kind] = [at, kind];
        [this.#block, this.#start, this.#length] = [wide(this.#block), wide(this.#start), wide(this.#length)];
    }
}

/** How many of `count` values in order are no larger than one. */
function countUpTo(count: number, value: (index: number) => number, most: number): number {
    let [low, high] = [0, count];
    while (low < high) {
        const middle = (low + high) >>> 1;
        if (value(middle) <= most) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
