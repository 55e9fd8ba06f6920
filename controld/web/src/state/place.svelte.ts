// What is looked at, kept in the address: the account or the fleet, the chosen node, the filter, how tables are sorted.
import type { Sort } from "./order";

export const ACCOUNT_HREF = "/account";
const ACCOUNT = /^\/account\/?$/u;

export class Place {
    node = $state<string | undefined>();
    /** Not the fleet, but who looks at it. */
    account = $state(false);
    /** The address is none that this page has. */
    nowhere = $state(false);
    filter = $state("");
    sorts = $state.raw<ReadonlyMap<string, Sort>>(new Map());

    constructor() {
        this.read();
    }

    /** After the browser went back or forward. */
    read(): void {
        const { pathname, search } = window.location;
        const found = /^\/nodes\/([^/]+)\/?$/u.exec(pathname)?.[1];
        const asked = new URLSearchParams(search);
        this.node = found === undefined ? undefined : `nodes/${decoded(found)}`;
        this.account = ACCOUNT.test(pathname);
        this.nowhere = found === undefined && !this.account && pathname !== "/";
        this.filter = asked.get("q") ?? "";
        const sorts = new Map<string, Sort>();
        for (const [table, column] of asked) {
            if (table !== "q" && column !== "") {
                sorts.set(table, { column: column.replace(/^-/u, ""), descending: column.startsWith("-") });
            }
        }
        this.sorts = sorts;
    }

    /** The address of a node, or of all. */
    href(node: string | undefined): string {
        const asked = new URLSearchParams();
        if (this.filter !== "") {
            asked.set("q", this.filter);
        }
        for (const [table, { column, descending }] of this.sorts) {
            asked.set(table, descending ? `-${column}` : column);
        }
        const path = node === undefined ? "/" : `/nodes/${encodeURIComponent(node.replace(/^nodes\//u, ""))}`;
        return asked.size === 0 ? path : `${path}?${asked.toString()}`;
    }

    choose(node: string | undefined): void {
        this.node = node;
        this.account = false;
        this.nowhere = false;
        window.history.pushState(null, "", this.href(node));
    }

    chooseAccount(): void {
        this.node = undefined;
        this.account = true;
        this.nowhere = false;
        window.history.pushState(null, "", ACCOUNT_HREF);
    }

    search(filter: string): void {
        this.filter = filter;
        this.account = false;
        // Its address is written anew, as that of the list.
        this.nowhere = false;
        window.history.replaceState(null, "", this.href(this.node));
    }

    sort(table: string, sort: Sort): void {
        this.sorts = new Map(this.sorts).set(table, sort);
        window.history.replaceState(null, "", this.href(this.node));
    }
}

function decoded(text: string): string {
    try {
        return decodeURIComponent(text);
    } catch {
        return text;
    }
}
