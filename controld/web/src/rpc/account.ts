// One's own sessions, credentials and API tokens.
import type { Session, TotpSecret } from "../gen/horcrux/v1/auth_service_pb";
import type { ApiToken } from "../gen/horcrux/v1/token_service_pb";
import { UNARY, auth, tokens } from "./clients";

export async function listSessions(): Promise<readonly Session[]> {
    return (await auth.listSessions({}, UNARY)).sessions;
}

export async function endSession(sessionId: string): Promise<void> {
    await auth.endSession({ sessionId, requestId: crypto.randomUUID() }, UNARY);
}

export async function listTokens(): Promise<readonly ApiToken[]> {
    return (await tokens.list({}, UNARY)).tokens;
}

export async function revokeToken(tokenId: string): Promise<void> {
    await tokens.revoke({ tokenId, requestId: crypto.randomUUID() }, UNARY);
}

export async function changePassword(oldPassword: string, newPassword: string): Promise<void> {
    await auth.changePassword({ oldPassword, newPassword }, UNARY);
}

/** The password is empty in realms that keep it themselves. */
export async function startTotp(password: string): Promise<TotpSecret | undefined> {
    return (await auth.startTotp({ password }, UNARY)).totp;
}

/** Gives the recovery codes. */
export async function confirmTotp(code: string): Promise<readonly string[]> {
    return (await auth.confirmTotp({ code }, UNARY)).recoveryCodes;
}

export async function removeTotp(code: string): Promise<void> {
    await auth.removeTotp({ code }, UNARY);
}
