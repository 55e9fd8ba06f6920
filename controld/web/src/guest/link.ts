// What a guest's address holds behind the `#`: at first the link's secret, and from then on its id, so that the page can be
// loaded anew. Pure.

export type Coming =
    | { readonly by: "secret"; readonly secret: string }
    /** The browser has a cookie for it. */
    | { readonly by: "id"; readonly id: string }
    | { readonly by: "nothing" };

const SECRET = "hxg_";
const ID = /^[0-9a-f]{12}$/u;

export function read(hash: string): Coming {
    const held = hash.replace(/^#/u, "");
    if (held.startsWith(SECRET)) {
        return { by: "secret", secret: held };
    }
    return ID.test(held) ? { by: "id", id: held } : { by: "nothing" };
}

/** The address that the browser shows and remembers. */
export function address(id: string): string {
    return `/guest#${id}`;
}
