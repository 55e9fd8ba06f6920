import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";

import { RealmKind, RealmSchema } from "../gen/horcrux/v1/auth_service_pb";
import { isLocal, offer, realmOf, title } from "./realms";

const local = create(RealmSchema, { name: "local", kind: RealmKind.LOCAL, title: "Local users" });
const corp = create(RealmSchema, { name: "corp", kind: RealmKind.LDAP, title: "Company directory" });
const idp = create(RealmSchema, { name: "idp", kind: RealmKind.OIDC });

describe("realms", () => {
    it("with passwords share a form, the others are apart", () => {
        const { forms, providers } = offer([local, idp, corp], undefined);
        expect(forms).toEqual([local, corp]);
        expect(providers).toEqual([idp]);
    });

    it("are preselected as last used", () => {
        const all = [local, corp, idp];
        expect(offer(all, "corp").chosen).toBe("corp");
        expect(offer(all, "gone").chosen).toBe("local");
        expect(offer(all, "idp").chosen).toBe("local");
        expect(offer([idp], undefined).chosen).toBe("");
    });

    it("are called by their title, or else by their name", () => {
        expect(title(corp)).toBe("Company directory");
        expect(title(idp)).toBe("idp");
    });

    it("stand after the last @ of a user", () => {
        expect(realmOf("a@example.org@idp")).toBe("idp");
        expect(isLocal("admin@local")).toBe(true);
        expect(isLocal("local@corp")).toBe(false);
    });
});
