// What a serial line brought, for whoever downloads it: the end of it, where it is long. Pure.

const BLOCK = 64 << 10;
const BLOCKS = 128;

/** In blocks, for a line often brings one byte at a time. The oldest block makes room. */
export class Log {
    #blocks: Uint8Array<ArrayBuffer>[] = [];
    /** Bytes in the last block. */
    #filled = 0;
    #cut = 0;
    readonly #block: number;
    readonly #most: number;

    constructor(block = BLOCK, most = BLOCKS) {
        this.#block = block;
        this.#most = most;
    }

    /** How much of the beginning is not kept. */
    get cut(): number {
        return this.#cut;
    }

    get isEmpty(): boolean {
        return this.#blocks.length === 0;
    }

    push(piece: Uint8Array): void {
        for (let at = 0; at < piece.length; ) {
            const last = this.#blocks.at(-1);
            if (last === undefined || this.#filled === this.#block) {
                this.#grow();
                continue;
            }
            const part = piece.subarray(at, at + this.#block - this.#filled);
            last.set(part, this.#filled);
            this.#filled += part.length;
            at += part.length;
        }
    }

    /** With a first line that says so where the beginning is missing. */
    parts(): (string | Uint8Array<ArrayBuffer>)[] {
        const head = this.#cut === 0 ? [] : [`[the beginning is missing: ${this.#cut} bytes]\n`];
        const last = this.#blocks.at(-1)?.subarray(0, this.#filled);
        return [...head, ...this.#blocks.slice(0, -1), ...(last === undefined ? [] : [last])];
    }

    #grow(): void {
        if (this.#blocks.length === this.#most) {
            this.#blocks.shift();
            this.#cut += this.#block;
        }
        this.#blocks.push(new Uint8Array(this.#block));
        this.#filled = 0;
    }
}
