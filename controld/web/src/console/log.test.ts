import { expect, it } from "vitest";

import { Log } from "./log";

const piece = (text: string): Uint8Array => new TextEncoder().encode(text);
const whole = (log: Log): Promise<string> => new Blob(log.parts()).text();

it("keeps everything as it came while there is room", async () => {
    const log = new Log(4, 3);
    expect(log.isEmpty).toBe(true);
    for (const letter of "login: me\n") {
        log.push(piece(letter));
    }
    expect(await whole(log)).toBe("login: me\n");
    expect([log.isEmpty, log.cut]).toEqual([false, 0]);
});

it("keeps the end, and says how much is missing before it", async () => {
    const log = new Log(4, 3);
    log.push(piece("one two three"));
    expect(await whole(log)).toBe("[the beginning is missing: 4 bytes]\ntwo three");
    log.push(piece(" and much more of it"));
    expect(log.cut).toBe(24);
    expect(await whole(log)).toBe("[the beginning is missing: 24 bytes]\nore of it");
});
