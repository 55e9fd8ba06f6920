import { Code, ConnectError } from "@connectrpc/connect";
import { expect, it } from "vitest";

import contract from "../../../../proto/src/console.rs?raw";
import { ofClose, ofTicket } from "./endings";

it("has words of their own for each close code of the contract", () => {
    const codes = [...contract.matchAll(/Self::\w+ => (\d{4}),/gu)].map(([, code]) => Number(code));
    expect(codes.length).toBeGreaterThanOrEqual(14);
    const causes = [1000, 1006, ...codes].map((code) => ofClose(code, "").cause);
    expect(causes).not.toContain("unknown");
    expect(new Set(causes).size).toBe(causes.length);
});

it("says what the controller said, and can't be made to look like something else", () => {
    expect(ofClose(4412, "bob@local ended it\u202e").said).toBe("bob@local ended it\uFFFD");
    expect(ofClose(4999, "").said).toBe("Code 4999.");
});

it("tries again by itself only where nobody decided otherwise", () => {
    const again = [1000, 1006, 1012, 4400, 4401, 4403, 4404, 4408, 4409, 4410, 4411, 4412, 4413, 4422, 4429, 4500].filter(
        (code) => ofClose(code, "").next === "again",
    );
    expect(again).toEqual([1006, 1012, 4409]);
    expect(ofClose(4401, "").next).toBe("sign-in");
});

it("tells why no ticket was given", () => {
    const ending = (code: Code) => ofTicket(new ConnectError("the VM is off", code));
    expect(ending(Code.Unauthenticated)).toMatchObject({ cause: "session", next: "sign-in" });
    expect(ending(Code.PermissionDenied)).toEqual(ending(Code.NotFound));
    expect(ending(Code.Unavailable)).toMatchObject({ next: "again" });
    expect(ending(Code.ResourceExhausted)).toMatchObject({ cause: "too-many", next: "ask" });
    expect(ending(Code.FailedPrecondition)).toMatchObject({ cause: "not-opened", text: "The VM is off.", next: "ask" });
    expect(ofTicket(new TypeError("fetch failed"))).toMatchObject({ next: "again" });
});
