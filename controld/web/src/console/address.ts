// Where a VM's console is: /vms/{uuid}/console?kind=serial&mode=view. What is not told is the screen, with keys. Pure.

export type Kind = "vnc" | "serial";
export type Mode = "control" | "view";

export interface Address {
    /** Bare: the contract's name of the VM is `vms/{uuid}`. */
    readonly uuid: string;
    readonly kind: Kind;
    readonly mode: Mode;
}

const PATH = /^\/vms\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\/console\/?$/iu;

export function readAddress(pathname: string, search: string): Address | undefined {
    const uuid = PATH.exec(pathname)?.[1]?.toLowerCase();
    if (uuid === undefined) {
        return undefined;
    }
    const asked = new URLSearchParams(search);
    return {
        uuid,
        kind: asked.get("kind") === "serial" ? "serial" : "vnc",
        mode: asked.get("mode") === "view" ? "view" : "control",
    };
}

export function href({ uuid, kind, mode }: Address): string {
    const asked = [...(kind === "serial" ? ["kind=serial"] : []), ...(mode === "view" ? ["mode=view"] : [])];
    return `/vms/${uuid}/console${asked.length === 0 ? "" : `?${asked.join("&")}`}`;
}

/** The address that was kept over a sign-in. Whatever else was kept leads nowhere. */
export function keptHref(kept: string | undefined): string | undefined {
    if (kept === undefined) {
        return undefined;
    }
    const [pathname = "", search = ""] = kept.split("?");
    const address = readAddress(pathname, search);
    return address === undefined ? undefined : href(address);
}
