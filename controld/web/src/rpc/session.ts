// Who uses the page: asked at load, changed by signing in and out.
import { Code, ConnectError } from "@connectrpc/connect";

import { auth, proof, system } from "./clients";

export type Standing =
    | { kind: "signed-in"; user: string; roles: readonly string[] }
    | { kind: "signed-out" }
    /** No administrator exists yet. */
    | { kind: "setup" };

const UNARY = { timeoutMs: 15_000 };

export async function standing(): Promise<Standing> {
    try {
        const me = await auth.whoAmI({}, UNARY);
        proof.csrf = me.csrfToken;
        return { kind: "signed-in", user: me.session?.user ?? "", roles: me.roles };
    } catch (error) {
        if (ConnectError.from(error).code !== Code.Unauthenticated) {
            throw error;
        }
    }
    proof.csrf = undefined;
    const about = await system.getVersion({}, UNARY);
    return { kind: about.setupRequired ? "setup" : "signed-out" };
}

export async function signIn(username: string, password: string): Promise<Standing> {
    const answer = await auth.signIn({ username, password }, UNARY);
    proof.csrf = answer.csrfToken;
    return standing();
}

/** Makes the first administrator, and signs it in. */
export async function completeSetup(username: string, password: string, setupCode: string): Promise<Standing> {
    await auth.completeSetup({ username, password, setupCode }, UNARY);
    return signIn(username, password);
}

export async function signOut(): Promise<void> {
    try {
        await auth.signOut({}, UNARY);
    } catch (error) {
        // It was over already.
        if (ConnectError.from(error).code !== Code.Unauthenticated) {
            throw error;
        }
    }
    proof.csrf = undefined;
}
