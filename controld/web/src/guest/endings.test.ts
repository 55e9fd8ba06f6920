import { Code, ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";

import { ofClose, ofTicket } from "../console/endings";
import { worded } from "./endings";

test("a guest is never told to sign in, and keeps hearing why", () => {
    for (const ending of [
        worded(ofClose(4401, "the guest link was taken back")),
        worded(ofTicket(new ConnectError("x", Code.Unauthenticated))),
        worded(ofTicket(new ConnectError("x", Code.PermissionDenied))),
        worded(ofClose(4403, "")),
    ]) {
        expect(ending.next).toBe("over");
        expect(ending.text).not.toMatch(/sign in|your right/iu);
    }
    expect(worded(ofClose(4401, "the guest link was taken back")).said).toBe("the guest link was taken back");
    expect(worded(ofClose(4411, "")).title).toBe("The link was opened elsewhere");
});

test("what ends alike for all is told alike", () => {
    expect(worded(ofClose(4404, "off"))).toEqual(ofClose(4404, "off"));
    expect(worded(ofClose(1006, ""))).toEqual(ofClose(1006, ""));
});
