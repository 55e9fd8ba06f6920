import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import type { Channel } from "./channel";
import { Flow, type Picture, type Socket } from "./flow";

class Played implements Socket {
    binaryType = "blob";
    onopen: Socket["onopen"] = null;
    onmessage: Socket["onmessage"] = null;
    onclose: Socket["onclose"] = null;
    sent: (string | Uint8Array)[] = [];
    closed: number | undefined;

    send(data: string | Uint8Array): void {
        this.sent.push(data);
    }
    close(code?: number): void {
        this.closed = code;
    }
    say(notice: object): void {
        this.onmessage?.({ data: JSON.stringify(notice) });
    }
    end(code: number, reason = ""): void {
        this.onclose?.({ code, reason });
    }
}

const OPENED = { notice: "opened", console: "consoles/a", vm: "vms/1", vmDisplayName: "web1", node: "nodes/n1", inControl: true, recorded: true };

function played(ticket: () => Promise<string> = () => Promise.resolve("hxc_one")) {
    const sockets: Played[] = [];
    const channels: Channel[] = [];
    const pictures: Picture[] = [];
    const flow = new Flow({
        ticket,
        socket: () => {
            const socket = new Played();
            sockets.push(socket);
            return socket;
        },
        begun: (channel) => channels.push(channel),
        changed: (picture) => pictures.push(picture),
        random: () => 1,
    });
    const socket = (): Played => {
        const last = sockets.at(-1);
        if (last === undefined) {
            throw new Error("no socket was opened");
        }
        return last;
    };
    const opened = async (): Promise<Played> => {
        flow.start();
        await vi.advanceTimersByTimeAsync(0);
        socket().onopen?.();
        socket().say(OPENED);
        return socket();
    };
    return { flow, sockets, channels, pictures, socket, opened };
}

beforeEach(() => {
    vi.useFakeTimers();
});
afterEach(() => {
    vi.useRealTimers();
});

it("gives the ticket as the first message, and nothing before it is taken", async () => {
    const { flow, sockets, channels, socket } = played();
    flow.start();
    expect(sockets).toEqual([]);
    await vi.advanceTimersByTimeAsync(0);
    expect(flow.picture.stage.at).toBe("opening");
    expect(socket().sent).toEqual([]);
    socket().onopen?.();
    expect(socket().sent).toEqual(["hxc_one"]);
    expect(socket().binaryType).toBe("arraybuffer");
    socket().say(OPENED);
    expect(flow.picture).toMatchObject({ stage: { at: "open" }, node: "nodes/n1", inControl: true, opened: { recorded: true } });
    channels[0]?.send(new Uint8Array([5]));
    expect(socket().sent.slice(1)).toEqual([new Uint8Array([5])]);
});

it("begins a new conversation on the same socket when the VM was moved", async () => {
    const { flow, sockets, channels, opened } = played();
    const socket = await opened();
    socket.say({ notice: "waiting", why: "it is being moved" });
    expect(flow.picture.stage).toEqual({ at: "waiting", why: "it is being moved" });
    socket.say({ notice: "restarted", node: "nodes/n2" });
    expect(flow.picture).toMatchObject({ stage: { at: "open" }, node: "nodes/n2" });
    expect([sockets.length, channels.length]).toEqual([1, 2]);
    channels[0]?.send(new Uint8Array([1]));
    channels[1]?.send(new Uint8Array([2]));
    expect(socket.sent.slice(1)).toEqual([new Uint8Array([2])]);
});

it("goes on where the VM was not moved after all", async () => {
    const { flow, opened } = played();
    const socket = await opened();
    const byte = (): void => socket.onmessage?.({ data: new ArrayBuffer(1) });
    socket.say({ notice: "waiting", why: "it is being moved" });
    byte();
    expect(flow.picture.stage.at).toBe("waiting");
    await vi.advanceTimersByTimeAsync(3000);
    expect(flow.picture.stage.at).toBe("waiting");
    byte();
    expect(flow.picture.stage.at).toBe("open");
});

it("knows who has control, and asks for it", async () => {
    const { flow, opened } = played();
    const socket = await opened();
    socket.say({ notice: "control", inControl: false, by: "bob@local" });
    expect(flow.picture.inControl).toBe(false);
    flow.ask({ ask: "takeControl" });
    expect(socket.sent.at(-1)).toBe('{"ask":"takeControl"}');
});

it("tries again with another ticket, after pauses that grow, until it lasts", async () => {
    let tickets = 0;
    const { flow, sockets, socket, opened } = played(() => Promise.resolve(`hxc_${++tickets}`));
    (await opened()).end(1012, "restarts");
    expect(flow.picture.stage).toMatchObject({ at: "pausing", ms: 1000 });
    await vi.advanceTimersByTimeAsync(999);
    expect(sockets.length).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    socket().onopen?.();
    expect(socket().sent).toEqual(["hxc_2"]);
    socket().end(1006);
    expect(flow.picture.stage).toMatchObject({ at: "pausing", ms: 2000 });
    flow.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(sockets.length).toBe(3);
    socket().say(OPENED);
    await vi.advanceTimersByTimeAsync(10_000);
    socket().end(1006);
    expect(flow.picture.stage).toMatchObject({ at: "pausing", ms: 500 });
});

it("stays ended where somebody decided so", async () => {
    const { flow, sockets, channels, opened } = played();
    const closed: number[] = [];
    const socket = await opened();
    for (const channel of channels) {
        channel.onclose = ({ code }) => closed.push(code);
    }
    socket.end(4403, "the right was lost");
    await vi.advanceTimersByTimeAsync(60_000);
    expect(flow.picture.stage).toMatchObject({ at: "ended", ending: { cause: "right", said: "the right was lost" } });
    expect(flow.picture.opened?.vmDisplayName).toBe("web1");
    expect([sockets.length, closed]).toEqual([1, [4403]]);
});

it("says why there is no ticket", async () => {
    const { flow, sockets } = played(() => Promise.reject(new ConnectError("no session", Code.Unauthenticated)));
    flow.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(flow.picture.stage).toMatchObject({ at: "ended", ending: { next: "sign-in" } });
    expect(sockets).toEqual([]);
});

it("ends where what comes can't be read, unless that has ended already", async () => {
    const { flow, channels, opened } = played();
    const socket = await opened();
    const [channel] = channels;
    if (channel === undefined) {
        throw new Error("no conversation began");
    }
    flow.garbled(channel, "no screen");
    expect(flow.picture.stage).toMatchObject({ at: "ended", ending: { cause: "garbled", said: "no screen" } });
    expect(socket.closed).toBe(1000);
    (await opened()).end(4404, "off");
    const [, second] = channels;
    if (second !== undefined) {
        flow.garbled(second, "cut short");
    }
    expect(flow.picture.stage).toMatchObject({ at: "ended", ending: { cause: "off" } });
});

it("hurries when the network is back", async () => {
    const { flow, sockets, opened } = played();
    flow.hurry();
    expect(sockets).toEqual([]);
    (await opened()).end(1006);
    flow.hurry();
    await vi.advanceTimersByTimeAsync(0);
    expect(sockets.length).toBe(2);
});

it("leaves nothing behind when it is stopped", async () => {
    const { flow, sockets, pictures, opened } = played();
    const socket = await opened();
    flow.stop();
    expect(socket.closed).toBe(1000);
    const told = pictures.length;
    socket.end(1006);
    socket.say(OPENED);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([sockets.length, pictures.length]).toEqual([1, told]);
});

it("drops a ticket that comes after it was stopped", async () => {
    let give: (ticket: string) => void = () => undefined;
    const { flow, sockets } = played(() => new Promise((resolve) => (give = resolve)));
    flow.start();
    flow.stop();
    give("hxc_late");
    await vi.advanceTimersByTimeAsync(0);
    expect(sockets).toEqual([]);
});
