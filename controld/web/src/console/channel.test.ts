import { expect, it } from "vitest";

import { Channel } from "./channel";
import { MAX_MESSAGE } from "./wire";

const bytes = (...values: number[]): ArrayBuffer => new Uint8Array(values).buffer;
const settled = (): Promise<void> => Promise.resolve();

it("has what noVNC looks for in a channel", () => {
    const channel = new Channel(() => undefined);
    const names = [...Object.keys(channel), ...Object.getOwnPropertyNames(Object.getPrototypeOf(channel))];
    expect(names).toEqual(
        expect.arrayContaining(["send", "close", "binaryType", "onerror", "onmessage", "onopen", "protocol", "readyState"]),
    );
});

it("keeps what comes before anybody listens, in order", async () => {
    const channel = new Channel(() => undefined);
    const heard: number[] = [];
    channel.hear(bytes(1));
    channel.onmessage = ({ data }) => heard.push(...new Uint8Array(data));
    expect(heard).toEqual([]);
    channel.hear(bytes(2));
    await settled();
    channel.hear(bytes(3));
    expect(heard).toEqual([1, 2, 3]);
});

it("sends in pieces that the contract allows, and copies", () => {
    const sent: Uint8Array[] = [];
    const channel = new Channel((piece) => sent.push(piece));
    const long = new Uint8Array(MAX_MESSAGE + 3).fill(7);
    channel.send(long);
    long.fill(0);
    expect(sent.map(({ length }) => length)).toEqual([MAX_MESSAGE, 3]);
    expect(sent[1]).toEqual(new Uint8Array([7, 7, 7]));
});

it("is silent after its end, which it tells once", async () => {
    const sent: Uint8Array[] = [];
    const ends: number[] = [];
    const heard: unknown[] = [];
    const channel = new Channel((piece) => sent.push(piece));
    channel.onmessage = (event) => heard.push(event);
    channel.onclose = ({ code }) => ends.push(code);
    channel.close();
    channel.end(4404, "off");
    channel.hear(bytes(1));
    channel.send(new Uint8Array([1]));
    await settled();
    expect({ sent, ends, heard }).toEqual({ sent: [], ends: [1000], heard: [] });
});
