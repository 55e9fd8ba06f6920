// In which order a table shows its rows.
export type Key = string | number | undefined;

export interface Sort {
    readonly column: string;
    readonly descending: boolean;
}

const names = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Rows without a key come last whichever way they are sorted. */
export function sorted<Row>(rows: readonly Row[], key: (row: Row) => Key, descending: boolean): Row[] {
    const keyed = rows.map((row) => ({ row, key: key(row) }));
    const sign = descending ? -1 : 1;
    keyed.sort((one, other) => {
        if (one.key === undefined || other.key === undefined) {
            return Number(one.key === undefined) - Number(other.key === undefined);
        }
        return typeof one.key === "number" && typeof other.key === "number"
            ? sign * (one.key - other.key)
            : sign * names.compare(String(one.key), String(other.key));
    });
    return keyed.map(({ row }) => row);
}

/** The rows as they stood before, so that none moves under a pointer; new ones come last. */
export function held<Row extends { readonly key: string }>(rows: readonly Row[], before: readonly string[]): Row[] {
    const now = new Map(rows.map((row) => [row.key, row]));
    const known = before.map((key) => {
        const row = now.get(key);
        now.delete(key);
        return row;
    });
    return [...known.filter((row) => row !== undefined), ...now.values()];
}
