// Which rows a table shows, and in what order.

import { bare, type Cell, type Column } from "./columns";
import type { Thing } from "./fleet";

export type Order = { column: string; descending: boolean };

// Those whose text cells hold `filter`, in order. What is absent comes last either way; equal rows keep the order of their
// names.
export function arranged<T extends { name: string }>(
  things: readonly Thing<T>[],
  columns: readonly Column<T>[],
  order: Order,
  filter: string,
): Thing<T>[] {
  const wanted = filter.trim().toLowerCase();
  const matches = (thing: Thing<T>) => columns.some((column) => textOf(column.cell(thing)).toLowerCase().includes(wanted));
  const column = columns.find((each) => each.id === order.column) ?? columns[0];
  const sign = order.descending ? -1 : 1;
  const keyed = things
    .filter((thing) => wanted === "" || matches(thing))
    .map((thing) => ({ thing, key: column && keyOf(column.cell(thing)) }));
  keyed.sort((a, b) => {
    const absent = Number(a.key === undefined) - Number(b.key === undefined);
    return absent || sign * compare(a.key, b.key) || compare(a.thing.object.name, b.thing.object.name);
  });
  return keyed.map(({ thing }) => thing);
}

function textOf(cell: Cell): string {
  if (cell.kind === "text" || cell.kind === "state") return cell.text;
  return cell.kind === "node" ? bare(cell.name) : "";
}

function keyOf(cell: Cell): string | number | undefined {
  return cell.kind === "usage" || cell.kind === "number" ? cell.value : textOf(cell);
}

function compare(a: string | number | undefined, b: string | number | undefined): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true });
}
