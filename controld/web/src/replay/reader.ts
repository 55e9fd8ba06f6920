// What the readers of both sorts of recordings have in common. Pure.

/** Longer than any record: 64 KiB of control characters are six times that as asciicast. The controller has the same. */
export const LONGEST = 1 << 20;
/** A year: a time beyond it is no time of a console's. */
const LONGEST_MS = 366 * 24 * 3_600_000;

export interface Reader {
    /** Throws `Unreadable`, and is of no use any more then. */
    take(bytes: Uint8Array): void;
}

export class Unreadable extends Error {}

/** Milliseconds since the beginning. */
export function time(ms: number): number {
    if (!(ms >= 0 && ms <= LONGEST_MS)) {
        throw new Unreadable("it has a time that no console has");
    }
    return ms;
}

/** Pieces that are cut anywhere. */
export class Pieces {
    #rest = new Uint8Array();
    /** Of the first byte that hasn't been used. */
    offset = 0;

    /** What has come and wasn't used, this piece last. */
    add(bytes: Uint8Array): Uint8Array {
        if (this.#rest.length === 0) {
            return bytes;
        }
        const all = new Uint8Array(this.#rest.length + bytes.length);
        all.set(this.#rest);
        all.set(bytes, this.#rest.length);
        return all;
    }

    /** Of all that there was, so many bytes were used. */
    used(all: Uint8Array, count: number): void {
        this.#rest = all.slice(count);
        if (this.#rest.length > LONGEST) {
            throw new Unreadable("it has a record that is too long");
        }
    }
}

/** A line of JSON. */
export function parsed(line: Uint8Array): unknown {
    try {
        return JSON.parse(new TextDecoder().decode(line));
    } catch {
        throw new Unreadable("it has a line that is no JSON");
    }
}

export function isObject(found: unknown): found is Record<string, unknown> {
    return typeof found === "object" && found !== null && !Array.isArray(found);
}
