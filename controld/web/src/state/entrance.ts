// Signing in, step by step. Pure.
//
//   start ──▶ code ───────────▶ in
//     ▲  └──▶ enrol ──▶ codes ──▶ in      a challenge that ran out goes back to start
//   finish, where the provider of an OIDC realm sent the browser back, leads where start does
import { Code, ConnectError } from "@connectrpc/connect";

import type { AnswerChallengeResponse, Challenge, TotpSecret } from "../gen/horcrux/v1/auth_service_pb";

export type Step =
    | { readonly at: "start"; readonly trouble: string }
    | { readonly at: "finish"; readonly flow: string; readonly code: string; readonly state: string }
    /** A second factor is asked for. */
    | { readonly at: "code"; readonly challenge: string; readonly expiresMs: number }
    /** One is to be set up. */
    | { readonly at: "enrol"; readonly challenge: string; readonly expiresMs: number; readonly totp: TotpSecret }
    /** The session is open, and these are shown this once. */
    | { readonly at: "codes"; readonly codes: readonly string[] }
    | { readonly at: "in" };

export const START: Step = { at: "start", trouble: "" };

export const EXPIRED = "That took too long, and the sign-in has expired. Begin again.";

/** What the contract gives to a challenge. */
const CHALLENGE_MS = 300_000;

/** After a password, or after a provider vouched. */
export function afterFirst(answer: { challenge?: Challenge | undefined }): Step {
    const { challenge } = answer;
    if (challenge === undefined) {
        return { at: "in" };
    }
    const { id, newTotp } = challenge;
    const expiresMs = Number(challenge.expiresUnixMs);
    return newTotp === undefined
        ? { at: "code", challenge: id, expiresMs }
        : { at: "enrol", challenge: id, expiresMs, totp: newTotp };
}

export function afterCode({ recoveryCodes }: Pick<AnswerChallengeResponse, "recoveryCodes">): Step {
    return recoveryCodes.length === 0 ? { at: "in" } : { at: "codes", codes: recoveryCodes };
}

/** How long a challenge is good for. Where this machine's clock is plainly wrong, as long as the contract says. */
export function lifeMs(expiresMs: number, nowMs: number): number {
    const left = expiresMs - nowMs;
    return left > 0 && left < CHALLENGE_MS ? left : CHALLENGE_MS;
}

/** The controller no longer has the challenge: no code will do. */
export function isGone(error: unknown): boolean {
    return ConnectError.from(error).code === Code.NotFound;
}

/** As people type it: authenticators show `123 456`. */
export function bareCode(typed: string): string {
    return typed.replace(/\s/gu, "");
}
