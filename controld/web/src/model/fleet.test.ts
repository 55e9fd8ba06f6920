import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { WatchResponseSchema, type WatchResponse } from "../gen/horcrux/v1/watch_service_pb";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { absenceOf, Fleet } from "./fleet";

type Message = NonNullable<MessageInitShape<typeof WatchResponseSchema>["message"]>;
const message = (message: Message): WatchResponse => create(WatchResponseSchema, { message });

function column(metric: Metric, values: number[]) {
  // One byte in, as a decoder may give it.
  const bytes = new Uint8Array(values.length * 4 + 1).subarray(1);
  const view = new DataView(bytes.buffer, 1);
  values.forEach((value, at) => view.setFloat32(at * 4, value, true));
  return { metric, instance: "", values: bytes };
}

const node = (slot: number, name: string) => ({ slot, object: { case: "node" as const, value: { name } } });
const frame = (slots: number[], ...columns: ReturnType<typeof column>[]) => ({
  slots,
  ageMs: slots.map(() => 0),
  newestUnixMs: 1000n,
  columns,
});

function snapshot(fleet: Fleet) {
  const entities = [node(1, "nodes/a"), node(2, "nodes/b")];
  const frames = [frame([1, 2], column(Metric.NODE_CPU_USAGE, [12.5, Number.NaN]))];
  fleet.apply(message({ case: "snapshot", value: { entities, frames, complete: true } }), 0);
}

test("a value that is not a number is absent, and never zero", () => {
  const fleet = new Fleet();
  snapshot(fleet);
  expect(fleet.node("nodes/a")?.values.get(Metric.NODE_CPU_USAGE)).toBe(12.5);
  expect(fleet.node("nodes/b")?.values.has(Metric.NODE_CPU_USAGE)).toBe(false);
});

test("nothing of a snapshot is shown before it is whole", () => {
  const fleet = new Fleet();
  fleet.apply(message({ case: "snapshot", value: { entities: [node(1, "nodes/a")] } }), 0);
  expect([fleet.complete, fleet.nodes().length]).toEqual([false, 0]);
  fleet.apply(message({ case: "snapshot", value: { entities: [node(2, "nodes/b")], complete: true } }), 0);
  expect(fleet.nodes().map((each) => each.object.name)).toEqual(["nodes/a", "nodes/b"]);
});

test("what a later frame does not hold is no longer there", () => {
  const fleet = new Fleet();
  snapshot(fleet);
  const frames = [frame([1], column(Metric.NODE_LOAD_1M, [0.5]))];
  fleet.apply(message({ case: "changes", value: { sentUnixMs: 5n, frames } }), 0);
  expect([...(fleet.node("nodes/a")?.values ?? [])]).toEqual([[Metric.NODE_LOAD_1M, 0.5]]);
});

test("a column of another length than its slots is left out", () => {
  const fleet = new Fleet();
  snapshot(fleet);
  const frames = [frame([1, 2], column(Metric.NODE_LOAD_1M, [0.5]))];
  fleet.apply(message({ case: "changes", value: { frames } }), 0);
  expect(fleet.node("nodes/a")?.values.size).toBe(0);
});

test("after a gap the new snapshot replaces everything", () => {
  const fleet = new Fleet();
  snapshot(fleet);
  fleet.apply(message({ case: "gap", value: { missedTicks: 3n, missedEvents: 2n } }), 0);
  expect(fleet.missed).toEqual({ ticks: 3, events: 2 });
  expect(fleet.nodes().length).toBe(2);
  fleet.apply(message({ case: "snapshot", value: { entities: [node(9, "nodes/c")], complete: true } }), 0);
  expect(fleet.nodes().map((each) => each.object.name)).toEqual(["nodes/c"]);
});

test("what is gone is gone, and the newest event comes first", () => {
  const fleet = new Fleet();
  snapshot(fleet);
  const events = [{ detail: "first" }, { detail: "second" }];
  fleet.apply(message({ case: "changes", value: { gone: [1], events } }), 0);
  expect(fleet.nodes().map((each) => each.slot)).toEqual([2]);
  expect(fleet.events.map((event) => event.detail)).toEqual(["second", "first"]);
});

test("the controller's time goes on between messages", () => {
  const fleet = new Fleet();
  fleet.apply(message({ case: "heartbeat", value: { serverUnixMs: 5000n } }), 100);
  expect(fleet.serverMs(350)).toBe(5250);
});

test("a rate is absent for the reason that its counter is", () => {
  const absences = [{ metric: Metric.VM_NETWORK_RX_BYTES, instance: "", reason: "libvirt is gone" }];
  expect(absenceOf(absences as never, Metric.VM_NETWORK_RX_RATE)).toBe("libvirt is gone");
  expect(absenceOf(absences as never, Metric.VM_CPU_USAGE)).toBe("not read yet");
});
