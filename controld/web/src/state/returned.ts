// What the provider of an OIDC realm sent the browser back with. The address is anybody's to make: it counts only in the
// tab that holds the flow it belongs to, and nothing of it is shown in another.
import { plain } from "../words/text";
import type { Step } from "./entrance";

const PATH = /^\/oidc(\/[a-z0-9-]+)?\/?$/u;
const LONGEST = 300;

/** Undefined where the address is another, and then the flow isn't taken. */
export function returned(pathname: string, search: string, takeFlow: () => string | undefined): Step | undefined {
    if (!PATH.test(pathname)) {
        return undefined;
    }
    const flow = takeFlow();
    if (flow === undefined) {
        return { at: "start", trouble: "This sign-in was begun in another tab: begin again." };
    }
    const asked = new URLSearchParams(search);
    const error = asked.get("error");
    if (error !== null) {
        const reason = plain(asked.get("error_description") ?? error).slice(0, LONGEST);
        return { at: "start", trouble: `The provider did not sign you in. It says: ${reason}` };
    }
    const code = asked.get("code") ?? "";
    const state = asked.get("state") ?? "";
    if (code === "" || state === "") {
        return { at: "start", trouble: "The provider sent nothing to sign in with. Begin again." };
    }
    return { at: "finish", flow, code, state };
}

/** Whether the controller's answer is an address that a browser goes to, and no script. */
export function isWebAddress(url: string): boolean {
    return /^https?:\/\//iu.test(url);
}
