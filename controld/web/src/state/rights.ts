// What the caller may see, as far as words depend on it. What is shown is the controller's decision alone.
import type { HeldPrivileges } from "../gen/horcrux/v1/auth_service_pb";
import { type Privilege, PrivilegeSchema } from "../gen/horcrux/v1/authz_pb";
import { sentence, word } from "../words/text";

type Held = readonly HeldPrivileges[];

/** Nothing is held anywhere. */
export function holdsNothing(held: Held): boolean {
    return held.every(({ privileges }) => privileges.length === 0);
}

/** Of what belongs to no object: the controller's own. */
export function holdsAtRoot(held: Held, privilege: Privilege): boolean {
    return held.some(({ path, privileges }) => path === "/" && privileges.includes(privilege));
}

/** The privilege covers a whole collection, for instance `/vms`: where nothing of it is seen, there is nothing. */
export function coversAll(held: Held, collection: string, privilege: Privilege): boolean {
    return held.some(
        ({ path, privileges, propagate }) =>
            propagate && (path === "/" || path === collection) && privileges.includes(privilege),
    );
}

/** The privilege may be held on this VM. Of pools and selectors only the controller knows what they cover. */
export function mayHoldOnVm(held: Held, vm: string, privilege: Privilege): boolean {
    return held.some(({ path, privileges, propagate }) => {
        const covers =
            path === `/${vm}` || path.startsWith("/pools/") || path.includes("?") || (propagate && (path === "/" || path === "/vms"));
        return covers && privileges.includes(privilege);
    });
}

/** As people see it: `VmAudit`. */
export function privilegeName(privilege: Privilege): string {
    return word(PrivilegeSchema, privilege).split(" ").map(sentence).join("");
}
