import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeSchema, NodeState, type Node } from "../gen/horcrux/v1/node_service_pb";
import { NODES, stale } from "./columns";
import type { Thing } from "./fleet";
import { arranged } from "./rows";
import { bytes, duration, levelOf, percent } from "./units";

function node(name: string, cpu: number | undefined, state = NodeState.CONNECTED): Thing<Node> {
  const values = new Map(cpu === undefined ? [] : [[Metric.NODE_CPU_USAGE, cpu]]);
  return { slot: 1, object: create(NodeSchema, { name: `nodes/${name}`, state }), values, sampledMs: 0 };
}

const names = (nodes: Thing<Node>[]) => nodes.map((each) => each.object.name.slice("nodes/".length)).join(" ");

test("absent values come last in both directions, equal ones by name", () => {
  const all = [node("a", undefined), node("b", 5), node("d", 90), node("c", 5)];
  expect(names(arranged(all, NODES, { column: "cpu", descending: false }, ""))).toBe("b c d a");
  expect(names(arranged(all, NODES, { column: "cpu", descending: true }, ""))).toBe("d b c a");
});

test("names with numbers are in the order that people expect", () => {
  const all = [node("web10", 1), node("web9", 1)];
  expect(names(arranged(all, NODES, { column: "name", descending: false }, ""))).toBe("web9 web10");
});

test("a filter looks at texts, without regard to case", () => {
  const all = [node("Web1", 1), node("db1", 1), node("x", 1, NodeState.DOWN)];
  expect(names(arranged(all, NODES, { column: "name", descending: false }, " wEB "))).toBe("Web1");
  expect(names(arranged(all, NODES, { column: "name", descending: false }, "down"))).toBe("x");
});

test("values of a node that is not connected are said to be old", () => {
  expect(stale(node("a", 1))).toBeUndefined();
  expect(stale(node("a", 1, NodeState.DOWN))).toMatch(/^a is down since /);
});

test("the bands begin at 50, 75 and 90 percent", () => {
  expect([49.9, 50, 74.9, 75, 89.9, 90].map(levelOf)).toEqual(["ok", "busy", "busy", "high", "high", "critical"]);
});

test("values read as people write them", () => {
  expect([0, 1023, 1536, 25 * 2 ** 30].map(bytes)).toEqual(["0 B", "1023 B", "1.5 KiB", "25.0 GiB"]);
  expect(percent(12.34)).toBe("12.3 %");
  expect([5000, 65_000, 90_061_000].map(duration)).toEqual(["5 s", "1 min 5 s", "1 d 1 h"]);
});
