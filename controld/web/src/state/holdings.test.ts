import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";

import { HeldPrivilegesSchema, SessionSchema } from "../gen/horcrux/v1/auth_service_pb";
import { Privilege } from "../gen/horcrux/v1/authz_pb";
import { ApiTokenSchema } from "../gen/horcrux/v1/token_service_pb";
import { client, holdings, inOrder, sessionFacts, tokenFacts, tokenGrants } from "./holdings";

const DAY = 86_400_000;

describe("sessions", () => {
    it("begin with this one, and then the last used", () => {
        const sessions = [
            create(SessionSchema, { id: "old", lastUsedUnixMs: 1n }),
            create(SessionSchema, { id: "new", lastUsedUnixMs: 9n }),
            create(SessionSchema, { id: "here", lastUsedUnixMs: 5n, current: true }),
        ];
        expect(inOrder(sessions).map(({ id }) => id)).toEqual(["here", "new", "old"]);
    });

    it("tell where they are from, and can't pose as anything else", () => {
        const session = create(SessionSchema, { client: "curl\u202E", source: "192.0.2.1" });
        expect(client(session)).toBe("curl\uFFFD");
        expect(client(create(SessionSchema, { client: "horcruxctl/0.1.0" }))).toBe("horcruxctl 0.1.0");
        expect(client(create(SessionSchema, {}))).toMatch(/doesn't say/u);
        expect(sessionFacts(session)[0]).toBe("from 192.0.2.1");
        expect(sessionFacts(session)[1]).toBe("opened 1970-01-01 00:00:00 UTC");
    });
});

describe("a token", () => {
    it("tells when it ends and when it was used", () => {
        const token = create(ApiTokenSchema, { id: "t1", expiresUnixMs: BigInt(DAY), networks: ["192.0.2.0/24"] });
        expect(tokenFacts(token, 0)).toEqual([
            "t1",
            "expires 1970-01-02 00:00:00 UTC",
            "never used",
            "works from 192.0.2.0/24 only",
        ]);
        const used = { ...token, lastUsedUnixMs: 0n, lastUsedFrom: "192.0.2.9" };
        expect(tokenFacts(used, 2 * DAY).slice(1, 3)).toEqual([
            "expired 1970-01-02 00:00:00 UTC",
            "last used 1970-01-01 00:00:00 UTC from 192.0.2.9",
        ]);
    });

    it("tells what it may do", () => {
        expect(tokenGrants(create(ApiTokenSchema, { full: true }))).toBe("May do all that you may.");
        expect(tokenGrants(create(ApiTokenSchema, {}))).toMatch(/nothing/u);
        const grants = [
            { role: "VmUser", path: "/pools/ci", propagate: true },
            { role: "Auditor", path: "/vms?tag=qa", notAfterUnixMs: 0n },
        ];
        expect(tokenGrants(create(ApiTokenSchema, { grants }))).toBe(
            "May do what you may, within VmUser on /pools/ci and below; Auditor on /vms?tag=qa until 1970-01-01 00:00:00 UTC.",
        );
    });
});

it("tells where privileges are held", () => {
    const held = [
        create(HeldPrivilegesSchema, { path: "/vms/1", privileges: [Privilege.VM_CONFIG, Privilege.VM_AUDIT] }),
        create(HeldPrivilegesSchema, { path: "/nodes", privileges: [Privilege.SYS_AUDIT], propagate: true }),
        create(HeldPrivilegesSchema, { path: "/", privileges: [], propagate: true }),
    ];
    expect(holdings(held).map(({ where, privileges }) => [where, privileges])).toEqual([
        ["/nodes and below", "SysAudit"],
        ["/vms/1 alone", "VmAudit VmConfig"],
    ]);
});
