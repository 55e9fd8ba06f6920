// What a table is told about a column.
import type { Key } from "../state/order";

export interface Column<Row> {
    readonly id: string;
    readonly title: string;
    /** What its heading doesn't say; stands below the table. */
    readonly help?: string;
    /** A class of style/table.css. */
    readonly width: string;
    /** Is left out where there is little room; then `cells` leaves it out too. */
    readonly roomy?: boolean;
    /** Its values stand at the right. */
    readonly numeric?: boolean;
    /** Sorts the largest first when chosen. */
    readonly largest?: boolean;
    /** By what it sorts. Unset: it doesn't. */
    readonly key?: (row: Row) => Key;
}
