// Who uses the page: asked at load, changed by signing in and out.
import { Code, ConnectError } from "@connectrpc/connect";

import type { Realm, WhoAmIResponse } from "../gen/horcrux/v1/auth_service_pb";
import { type Step, afterCode, afterFirst } from "../state/entrance";
import { UNARY, auth, proof, system } from "./clients";

export type Standing =
    | { kind: "signed-in"; me: WhoAmIResponse }
    | { kind: "signed-out"; realms: readonly Realm[] }
    /** No administrator exists yet. */
    | { kind: "setup" };

export async function standing(): Promise<Standing> {
    try {
        return { kind: "signed-in", me: await whoAmI() };
    } catch (error) {
        if (!isSignedOut(error)) {
            throw error;
        }
    }
    proof.csrf = undefined;
    return outside();
}

export async function whoAmI(): Promise<WhoAmIResponse> {
    const me = await auth.whoAmI({}, UNARY);
    proof.csrf = me.csrfToken;
    return me;
}

/** What there is to do without a session. */
export async function outside(): Promise<Standing> {
    const [about, { realms }] = await Promise.all([system.getVersion({}, UNARY), auth.listRealms({}, UNARY)]);
    return about.setupRequired ? { kind: "setup" } : { kind: "signed-out", realms };
}

export async function signIn(username: string, password: string, realm: string): Promise<Step> {
    const answer = await auth.signIn({ username, password, realm }, UNARY);
    proof.csrf = answer.csrfToken ?? proof.csrf;
    return afterFirst(answer);
}

/** Gives the second factor. */
export async function answerChallenge(challengeId: string, code: string): Promise<Step> {
    const answer = await auth.answerChallenge({ challengeId, code }, UNARY);
    proof.csrf = answer.csrfToken ?? proof.csrf;
    return afterCode(answer);
}

export async function startOidc(realm: string): Promise<{ flow: string; url: string }> {
    const { flowId, url } = await auth.startOidc({ realm, device: false }, UNARY);
    return { flow: flowId, url };
}

export async function finishOidc(flowId: string, code: string, state: string): Promise<Step> {
    const answer = await auth.finishOidc({ flowId, code, state }, UNARY);
    if (answer.pending) {
        throw new ConnectError("the provider has not finished the sign-in", Code.FailedPrecondition);
    }
    proof.csrf = answer.csrfToken ?? proof.csrf;
    return afterFirst(answer);
}

/** Makes the first administrator, and signs it in. */
export async function completeSetup(username: string, password: string, setupCode: string): Promise<Step> {
    await auth.completeSetup({ username, password, setupCode }, UNARY);
    return signIn(username, password, "");
}

export async function signOut(): Promise<void> {
    try {
        await auth.signOut({}, UNARY);
    } catch (error) {
        // It was over already.
        if (!isSignedOut(error)) {
            throw error;
        }
    }
    proof.csrf = undefined;
}

export function isSignedOut(error: unknown): boolean {
    return ConnectError.from(error).code === Code.Unauthenticated;
}
