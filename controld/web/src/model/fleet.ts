// What the stream has told so far. A snapshot is built beside what is shown and replaces it when it is complete, so that
// nobody sees half of one. A frame holds all values of its objects: what it doesn't hold is no longer there.

import { EventKind } from "../gen/horcrux/v1/watch_service_pb";
import type { Changes, Entity, Event, Snapshot, WatchResponse } from "../gen/horcrux/v1/watch_service_pb";
import type { Container } from "../gen/horcrux/v1/container_service_pb";
import type { Absence } from "../gen/horcrux/v1/inventory_pb";
import type { Metric, MetricsFrame } from "../gen/horcrux/v1/metrics_pb";
import type { Node } from "../gen/horcrux/v1/node_service_pb";
import type { Vm } from "../gen/horcrux/v1/vm_service_pb";
import { info } from "./catalogue";

export type Thing<T = Node | Vm | Container> = {
  slot: number;
  object: T;
  values: Map<Metric, number>;
  // By its node's clock.
  sampledMs: number | undefined;
};

type Kinds = { nodes: Map<number, Thing<Node>>; vms: Map<number, Thing<Vm>>; containers: Map<number, Thing<Container>> };

const MOST_EVENTS = 200;

const none = (): Kinds => ({ nodes: new Map(), vms: new Map(), containers: new Map() });

export class Fleet {
  private shown = none();
  private building: Kinds | undefined;
  // The controller's time, and this page's when it was told.
  private told: { serverMs: number; at: number } | undefined;
  complete = false;
  controllerVersion = "";
  // Newest first.
  events: Event[] = [];
  missed = { ticks: 0, events: 0 };

  // Takes in one message that came at `now`, in milliseconds of a clock that never steps.
  apply({ message }: WatchResponse, now: number): void {
    switch (message.case) {
      case "hello":
        this.hears(message.value.serverUnixMs, now);
        this.controllerVersion = message.value.controllerVersion;
        this.building = undefined;
        return;
      case "snapshot":
        this.snapshot(message.value);
        return;
      case "changes":
        this.hears(message.value.sentUnixMs, now);
        this.changes(message.value);
        return;
      case "heartbeat":
        this.hears(message.value.serverUnixMs, now);
        return;
      case "gap":
        this.building = undefined;
        this.missed.ticks += Number(message.value.missedTicks);
        this.missed.events += Number(message.value.missedEvents);
        return;
      default:
      // Of a newer controller.
    }
  }

  nodes(): Thing<Node>[] {
    return [...this.shown.nodes.values()];
  }

  vms(): Thing<Vm>[] {
    return [...this.shown.vms.values()];
  }

  containers(): Thing<Container>[] {
    return [...this.shown.containers.values()];
  }

  node(name: string): Thing<Node> | undefined {
    return this.nodes().find((node) => node.object.name === name);
  }

  // The controller's time at `now`.
  serverMs(now: number): number | undefined {
    return this.told && this.told.serverMs + (now - this.told.at);
  }

  private hears(serverMs: bigint, now: number): void {
    this.told = { serverMs: Number(serverMs), at: now };
  }

  private snapshot(piece: Snapshot): void {
    const building = (this.building ??= none());
    for (const entity of piece.entities) put(building, entity);
    for (const frame of piece.frames) fill(building, frame);
    if (piece.complete) {
      this.shown = building;
      this.building = undefined;
      this.complete = true;
    }
  }

  private changes(changes: Changes): void {
    // They belong to the newest snapshot, whole or not.
    const kinds = this.building ?? this.shown;
    for (const entity of changes.entities) put(kinds, entity);
    for (const frame of changes.frames) fill(kinds, frame);
    for (const slot of changes.gone) {
      kinds.nodes.delete(slot);
      kinds.vms.delete(slot);
      kinds.containers.delete(slot);
    }
    if (changes.events.length > 0) {
      this.events = [...changes.events.toReversed(), ...this.events].slice(0, MOST_EVENTS);
    }
  }
}

function put(kinds: Kinds, { slot, object }: Entity): void {
  const into = <T extends Node | Vm | Container>(things: Map<number, Thing<T>>, value: T) => {
    const known = things.get(slot);
    const told = value.lastSampleUnixMs === undefined ? undefined : Number(value.lastSampleUnixMs);
    if (known) {
      known.object = value;
      if (told !== undefined && told > (known.sampledMs ?? 0)) known.sampledMs = told;
    } else {
      things.set(slot, { slot, object: value, values: new Map(), sampledMs: told });
    }
  };
  if (object.case === "node") into(kinds.nodes, object.value);
  else if (object.case === "vm") into(kinds.vms, object.value);
  else if (object.case === "container") into(kinds.containers, object.value);
}

function fill(kinds: Kinds, frame: MetricsFrame): void {
  // Values may begin at any byte, where a Float32Array can't.
  const columns = frame.columns
    .filter((column) => column.instance === "" && column.values.byteLength === frame.slots.length * 4)
    .map(({ metric, values }) => ({ metric, view: new DataView(values.buffer, values.byteOffset, values.byteLength) }));
  frame.slots.forEach((slot, row) => {
    const thing = kinds.nodes.get(slot) ?? kinds.vms.get(slot) ?? kinds.containers.get(slot);
    if (!thing) return;
    thing.values.clear();
    for (const { metric, view } of columns) {
      const value = view.getFloat32(row * 4, true);
      if (Number.isFinite(value)) thing.values.set(metric, value);
    }
    thing.sampledMs = Number(frame.newestUnixMs) - (frame.ageMs[row] ?? 0);
  });
}

// Why a value isn't there, as its node says, or what that it is computed from isn't.
export function absenceOf(absences: readonly Absence[], metric: Metric): string {
  const counter = info(metric)?.rateOf;
  const found = absences.find((absence) => absence.metric === metric || (counter && absence.metric === counter));
  return found?.reason ?? "not read yet";
}

export function wordOf(kind: EventKind): string {
  return EventKind[kind].toLowerCase().replaceAll("_", " ");
}
