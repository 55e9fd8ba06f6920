// Where recordings are: /recordings, one VM's with ?vm=, and /recordings/{id}. Pure.

export type Address = { readonly at: "list"; readonly vm: string } | { readonly at: "one"; readonly id: string };

export const LIST_HREF = "/recordings";
const PATH = /^\/recordings(?:\/([\w-]{1,128}))?\/?$/u;

export function readAddress(pathname: string, search: string): Address | undefined {
    const found = PATH.exec(pathname);
    if (found === null) {
        return undefined;
    }
    const id = found[1];
    return id === undefined ? { at: "list", vm: new URLSearchParams(search).get("vm") ?? "" } : { at: "one", id };
}

export function href(address: Address): string {
    if (address.at === "one") {
        return `${LIST_HREF}/${address.id}`;
    }
    return address.vm === "" ? LIST_HREF : `${LIST_HREF}?${new URLSearchParams({ vm: address.vm }).toString()}`;
}

/** The address that was kept over a sign-in. Whatever else was kept leads nowhere. */
export function keptHref(kept: string | undefined): string | undefined {
    const [pathname = "", search = ""] = (kept ?? "").split("?");
    const address = readAddress(pathname, search);
    return address === undefined ? undefined : href(address);
}
