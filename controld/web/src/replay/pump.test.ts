import { expect, it } from "vitest";

import { Pump, type Stage } from "./pump";
import { Tape } from "./tape";

/** Keeps what it was shown; shows a slice when it is let. */
class Played implements Stage {
    shown: number[] = [];
    begun = 0;
    settled = 0;
    largest = 0;
    readonly #goesBackTo: (tape: Tape, wanted: number) => number;

    constructor(goesBackTo: (tape: Tape, wanted: number) => number = () => 0) {
        this.#goesBackTo = goesBackTo;
    }

    start(tape: Tape, wanted: number): number {
        return this.#goesBackTo(tape, wanted);
    }

    begin(): void {
        this.begun += 1;
        this.shown = [];
    }

    async show(_: Tape, from: number, to: number): Promise<void> {
        await new Promise((resolve) => setTimeout(resolve));
        this.largest = Math.max(this.largest, to - from);
        for (let index = from; index < to; index += 1) {
            this.shown.push(index);
        }
    }

    settle(): void {
        this.settled += 1;
    }
}

function tape(count: number, anew: readonly number[] = []): Tape {
    const made = new Tape();
    for (let at = 0; at < count; at += 1) {
        made.add(at, anew.includes(at) ? "anew" : "said", new Uint8Array(1000));
    }
    return made;
}

async function settled(stage: Played, times: number): Promise<void> {
    while (stage.settled < times) {
        await new Promise((resolve) => setTimeout(resolve));
    }
}

const upTo = (count: number, from = 0): number[] => Array.from({ length: count - from }, (_, at) => at + from);

it("goes forward by what comes next, and back by beginning anew", async () => {
    const [stage, all] = [new Played(), tape(1000)];
    const pump = new Pump(stage, () => 0);
    pump.aim(all, 600);
    await settled(stage, 1);
    expect([stage.shown, stage.begun]).toEqual([upTo(600), 1]);
    // In slices.
    expect(stage.largest).toBeLessThan(300);
    pump.aim(all, 900);
    await settled(stage, 2);
    expect([stage.shown, stage.begun]).toEqual([upTo(900), 1]);
    pump.aim(all, 10);
    await settled(stage, 3);
    expect([stage.shown, stage.begun]).toEqual([upTo(10), 2]);
});

it("follows whoever moves on before it is there", async () => {
    const [stage, all] = [new Played(), tape(5000)];
    const pump = new Pump(stage, () => 0);
    pump.aim(all, 5000);
    await new Promise((resolve) => setTimeout(resolve, 2));
    pump.aim(all, 3);
    await settled(stage, 1);
    expect([stage.shown, stage.settled]).toEqual([upTo(3), 1]);
});

it("begins with the conversation that is wanted, and with another tape anew", async () => {
    const [stage, all] = [new Played((of, wanted) => of.lastAnew(wanted) ?? 0), tape(1000, [400, 800])];
    const pump = new Pump(stage, () => 0);
    pump.aim(all, 500);
    await settled(stage, 1);
    expect(stage.shown).toEqual(upTo(500, 400));
    pump.aim(all, 900);
    await settled(stage, 2);
    expect([stage.shown, stage.begun]).toEqual([upTo(900, 800), 2]);
    pump.aim(all, 300);
    await settled(stage, 3);
    expect(stage.shown).toEqual(upTo(300));
    pump.aim(tape(300), 300);
    await settled(stage, 4);
    expect([stage.shown, stage.begun]).toEqual([upTo(300), 4]);
});

it("says when it is late", async () => {
    let now = 0;
    const [stage, all] = [new Played(), tape(1000)];
    const pump = new Pump(stage, () => now);
    pump.aim(all, 1000);
    expect(pump.isLate).toBe(false);
    now = 300;
    expect(pump.isLate).toBe(true);
    await settled(stage, 1);
    expect(pump.isLate).toBe(false);
});
