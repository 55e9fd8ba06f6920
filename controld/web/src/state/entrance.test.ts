import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";

import { AnswerChallengeResponseSchema, FinishOidcResponseSchema, SignInResponseSchema } from "../gen/horcrux/v1/auth_service_pb";
import { afterCode, afterFirst, bareCode, isGone, lifeMs } from "./entrance";

const MINUTE = 60_000;

describe("after the first factor", () => {
    it("one is in, where nothing else is asked for", () => {
        expect(afterFirst(create(SignInResponseSchema, { csrfToken: "c", session: {} }))).toEqual({ at: "in" });
    });

    it("a code is asked for, whoever vouched", () => {
        const challenge = { id: "ch", expiresUnixMs: 5n };
        const expected = { at: "code", challenge: "ch", expiresMs: 5 };
        expect(afterFirst(create(SignInResponseSchema, { challenge }))).toEqual(expected);
        expect(afterFirst(create(FinishOidcResponseSchema, { challenge }))).toEqual(expected);
    });

    it("a second factor is set up, where there is none and must be one", () => {
        const step = afterFirst(
            create(SignInResponseSchema, { challenge: { id: "ch", newTotp: { secret: "ABC", uri: "otpauth://totp/x" } } }),
        );
        expect(step).toMatchObject({ at: "enrol", challenge: "ch", totp: { secret: "ABC" } });
    });
});

it("shows recovery codes before one goes on, where there are some", () => {
    expect(afterCode(create(AnswerChallengeResponseSchema, {}))).toEqual({ at: "in" });
    expect(afterCode(create(AnswerChallengeResponseSchema, { recoveryCodes: ["a", "b"] }))).toEqual({
        at: "codes",
        codes: ["a", "b"],
    });
});

it.each([
    ["what is left of it", 2 * MINUTE, 2 * MINUTE],
    ["five minutes, where the clock here is ahead", -10 * MINUTE, 5 * MINUTE],
    ["five minutes, where the clock here is behind", 60 * MINUTE, 5 * MINUTE],
])("gives a challenge %s", (_, left, expected) => {
    expect(lifeMs(1_000_000 + left, 1_000_000)).toBe(expected);
});

it("takes a wrong code for no end of the challenge", () => {
    expect(isGone(new ConnectError("wrong code", Code.Unauthenticated))).toBe(false);
    expect(isGone(new ConnectError("slow down", Code.ResourceExhausted))).toBe(false);
    expect(isGone(new ConnectError("no such challenge", Code.NotFound))).toBe(true);
});

it("takes codes as authenticators show them", () => {
    expect(bareCode(" 123 456\n")).toBe("123456");
    expect(bareCode("abcd-efgh ")).toBe("abcd-efgh");
});
