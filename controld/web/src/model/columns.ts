// What the tables show, and in what order. A cell is data: how it looks is the view's business.

import { ContainerRuntime, VmState, type Absence } from "../gen/horcrux/v1/inventory_pb";
import type { Container } from "../gen/horcrux/v1/container_service_pb";
import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { NodeState, type Node } from "../gen/horcrux/v1/node_service_pb";
import type { Vm } from "../gen/horcrux/v1/vm_service_pb";
import { absenceOf, type Thing } from "./fleet";
import { bytes, clock, count, load, rate } from "./units";

export type Cell =
  | { kind: "text"; text: string; note?: string; faint?: boolean }
  | { kind: "state"; text: string; tone: Tone; note?: string }
  | { kind: "node"; name: string }
  | { kind: "usage"; metric: Metric; value: number | undefined; reason: string; detail?: string }
  | { kind: "number"; metric: Metric; value: number | undefined; reason: string; shown: (value: number) => string }
  | { kind: "course" };

export type Tone = "good" | "idle" | "warn" | "bad";

// Numbers are sorted from the highest; those without a bar stand at the right.
export type Column<T> = { id: string; title: string; help?: string; numeric: boolean; bar?: boolean; cell: (thing: Thing<T>) => Cell };

export const bare = (name: string) => name.slice(name.lastIndexOf("/") + 1);

// Of what is no longer heard of, values are of another time.
export function stale(node: Thing<Node> | undefined): string | undefined {
  if (!node || node.object.state === NodeState.CONNECTED) return undefined;
  return `${bare(node.object.name)} is ${NODE_STATES[node.object.state].text} since ${clock(Number(node.object.stateSinceUnixMs))}`;
}

const NODE_STATES: Record<NodeState, { text: string; tone: Tone }> = {
  [NodeState.UNSPECIFIED]: { text: "unknown", tone: "warn" },
  [NodeState.NEVER_SEEN]: { text: "never seen", tone: "idle" },
  [NodeState.CONNECTED]: { text: "connected", tone: "good" },
  [NodeState.LATE]: { text: "late", tone: "warn" },
  [NodeState.DOWN]: { text: "down", tone: "bad" },
};

const VM_STATES: Record<VmState, { text: string; tone: Tone }> = {
  [VmState.UNSPECIFIED]: { text: "unknown", tone: "warn" },
  [VmState.RUNNING]: { text: "running", tone: "good" },
  [VmState.BLOCKED]: { text: "blocked", tone: "warn" },
  [VmState.PAUSED]: { text: "paused", tone: "warn" },
  [VmState.SHUTTING_DOWN]: { text: "shutting down", tone: "warn" },
  [VmState.SHUT_OFF]: { text: "shut off", tone: "idle" },
  [VmState.CRASHED]: { text: "crashed", tone: "bad" },
  [VmState.PM_SUSPENDED]: { text: "suspended", tone: "idle" },
};

const words = (name: string | undefined) => (name ?? "unknown").toLowerCase().replaceAll("_", " ");

type Absences = (metric: Metric) => string;

function number<T>(thing: Thing<T>, metric: Metric, shown: (value: number) => string, why: Absences): Cell {
  return { kind: "number", metric, value: thing.values.get(metric), reason: why(metric), shown };
}

// The first of several metrics that there is.
function either<T>(thing: Thing<T>, metrics: [Metric, Metric], shown: (value: number) => string, why: Absences): Cell {
  const metric = thing.values.has(metrics[0]) ? metrics[0] : metrics[1];
  return number(thing, thing.values.has(metric) ? metric : metrics[0], shown, why);
}

function usage<T>(thing: Thing<T>, metric: Metric, why: Absences, parts?: [Metric, Metric]): Cell {
  const [part, whole] = (parts ?? []).map((each) => thing.values.get(each));
  const detail = part === undefined || whole === undefined ? undefined : `${bytes(part)} of ${bytes(whole)}`;
  return { kind: "usage", metric, value: thing.values.get(metric), reason: why(metric), ...(detail && { detail }) };
}

const why = (absences: readonly Absence[] | undefined): Absences => (metric) => absenceOf(absences ?? [], metric);
const ofNode: Absences = () => "not read yet";
const ofVm = (vm: Thing<Vm>) => (isOff(vm.object) ? () => "the VM does not run" : why(vm.object.facts?.absences));
const ofContainer = (container: Thing<Container>) => why(container.object.facts?.absences);

export const isOff = (vm: Vm) => vm.facts?.state === VmState.SHUT_OFF || vm.facts?.state === VmState.CRASHED;

const text = (id: string, title: string) => ({ id, title, numeric: false });
const bar = (id: string, title: string, help: string) => ({ id, title, help, numeric: true, bar: true });
const figure = (id: string, title: string, help?: string) => ({ id, title, numeric: true, ...(help && { help }) });

export const NODES: Column<Node>[] = [
  { ...text("name", "Node"), cell: (node) => ({ kind: "node", name: node.object.name }) },
  {
    ...text("state", "State"),
    cell: ({ object }) => {
      const since = `since ${clock(Number(object.stateSinceUnixMs))}`;
      return { kind: "state", ...NODE_STATES[object.state], note: since };
    },
  },
  { ...bar("cpu", "CPU", "Of all cores"), cell: (node) => usage(node, Metric.NODE_CPU_USAGE, ofNode) },
  { ...text("course", "CPU, 10 min"), cell: () => ({ kind: "course" }) },
  {
    ...bar("memory", "Memory", "In use: total less available; cache is not counted"),
    cell: (node) => usage(node, Metric.NODE_MEMORY_USAGE, ofNode, [Metric.NODE_MEMORY_USED, Metric.NODE_MEMORY_TOTAL]),
  },
  { ...figure("load1", "Load 1"), cell: (node) => number(node, Metric.NODE_LOAD_1M, load, ofNode) },
  { ...figure("load5", "5"), cell: (node) => number(node, Metric.NODE_LOAD_5M, load, ofNode) },
  { ...figure("load15", "15"), cell: (node) => number(node, Metric.NODE_LOAD_15M, load, ofNode) },
  { ...figure("read", "Disk read"), cell: (node) => number(node, Metric.NODE_DISK_READ_RATE, rate, ofNode) },
  { ...figure("write", "Disk write"), cell: (node) => number(node, Metric.NODE_DISK_WRITE_RATE, rate, ofNode) },
  { ...figure("rx", "Net in"), cell: (node) => number(node, Metric.NODE_NETWORK_RX_RATE, rate, ofNode) },
  { ...figure("tx", "Net out"), cell: (node) => number(node, Metric.NODE_NETWORK_TX_RATE, rate, ofNode) },
];

export const VMS: Column<Vm>[] = [
  { ...text("name", "VM"), cell: ({ object }) => ({ kind: "text", text: object.facts?.displayName ?? "", note: object.name }) },
  { ...text("node", "Node"), cell: ({ object }) => ({ kind: "node", name: object.node }) },
  {
    ...text("state", "State"),
    cell: ({ object }) => ({ kind: "state", ...VM_STATES[object.facts?.state ?? VmState.UNSPECIFIED] }),
  },
  { ...bar("cpu", "CPU", "Of its vCPUs"), cell: (vm) => usage(vm, Metric.VM_CPU_USAGE, ofVm(vm)) },
  {
    ...bar("memory", "Memory", "As its balloon driver says"),
    cell: (vm) => usage(vm, Metric.VM_MEMORY_USAGE, ofVm(vm)),
  },
  { ...figure("resident", "On host", "Memory of the host that it holds"), cell: (vm) => number(vm, Metric.VM_MEMORY_RESIDENT, bytes, ofVm(vm)) },
  {
    ...figure("read", "Disk read"),
    cell: (vm) => either(vm, [Metric.VM_DISK_READ_RATE, Metric.VM_IO_READ_RATE], rate, ofVm(vm)),
  },
  {
    ...figure("write", "Disk write"),
    cell: (vm) => either(vm, [Metric.VM_DISK_WRITE_RATE, Metric.VM_IO_WRITE_RATE], rate, ofVm(vm)),
  },
  { ...figure("rx", "Net in"), cell: (vm) => number(vm, Metric.VM_NETWORK_RX_RATE, rate, ofVm(vm)) },
  { ...figure("tx", "Net out"), cell: (vm) => number(vm, Metric.VM_NETWORK_TX_RATE, rate, ofVm(vm)) },
];

export const CONTAINERS: Column<Container>[] = [
  {
    ...text("name", "Container"),
    cell: ({ object: { facts } }) =>
      facts?.displayName
        ? { kind: "text", text: facts.displayName, note: facts.id }
        : { kind: "text", text: facts?.id.slice(0, 12) ?? "", faint: true, note: `name unknown: ${facts?.nameUnknownReason}; ${facts?.id}` },
  },
  { ...text("node", "Node"), cell: ({ object }) => ({ kind: "node", name: object.node }) },
  {
    ...text("runtime", "Runtime"),
    cell: ({ object }) => ({ kind: "text", text: words(ContainerRuntime[object.facts?.runtime ?? 0]) }),
  },
  {
    ...bar("cpu", "CPU", "Of its limit, or else of all cores of its node"),
    cell: (container) => usage(container, Metric.CONTAINER_CPU_USAGE, ofContainer(container)),
  },
  {
    ...bar("memory", "Memory", "Working set, of its limit or else of its node"),
    cell: (container) => usage(container, Metric.CONTAINER_MEMORY_USAGE, ofContainer(container)),
  },
  { ...figure("set", "Working set"), cell: (c) => number(c, Metric.CONTAINER_MEMORY_WORKING_SET, bytes, ofContainer(c)) },
  { ...figure("read", "Disk read"), cell: (c) => number(c, Metric.CONTAINER_IO_READ_RATE, rate, ofContainer(c)) },
  { ...figure("write", "Disk write"), cell: (c) => number(c, Metric.CONTAINER_IO_WRITE_RATE, rate, ofContainer(c)) },
  { ...figure("pids", "Processes"), cell: (c) => number(c, Metric.CONTAINER_PIDS, count, ofContainer(c)) },
];
