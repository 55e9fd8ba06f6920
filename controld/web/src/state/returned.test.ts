import { describe, expect, it, vi } from "vitest";

import { isWebAddress, returned } from "./returned";

const flow = (): string => "f1";
const none = (): undefined => undefined;

describe("what the provider sent the browser back with", () => {
    it("is what the controller is asked to finish with", () => {
        expect(returned("/oidc", "?code=c%2B1&state=s1&iss=x", flow)).toEqual({
            at: "finish",
            flow: "f1",
            code: "c+1",
            state: "s1",
        });
    });

    it("is looked for at its own address only, and the flow stays for it", () => {
        const take = vi.fn(flow);
        expect(returned("/", "?code=c&state=s", take)).toBeUndefined();
        expect(returned("/oidc/corp/x", "?code=c&state=s", take)).toBeUndefined();
        expect(take).not.toHaveBeenCalled();
        expect(returned("/oidc/corp", "?code=c&state=s", take)).toMatchObject({ at: "finish" });
        expect(returned("/oidc/", "?code=c&state=s", take)).toMatchObject({ at: "finish" });
    });

    it("is worth nothing in a tab that began no sign-in, and none of its words are shown", () => {
        const trouble = "This sign-in was begun in another tab: begin again.";
        expect(returned("/oidc", "?code=c&state=s", none)).toEqual({ at: "start", trouble });
        expect(returned("/oidc", "?error=x&error_description=Call+555", none)).toEqual({ at: "start", trouble });
    });

    it("may be an error, which is told, and not at any length", () => {
        expect(returned("/oidc", "?error=access_denied&error_description=Not%20you%E2%80%AE", flow)).toEqual({
            at: "start",
            trouble: "The provider did not sign you in. It says: Not you\uFFFD",
        });
        expect(returned("/oidc", "?error=access_denied", flow)).toMatchObject({ trouble: expect.stringMatching(/access_denied$/u) as string });
        const long = returned("/oidc", `?error=${"x".repeat(5000)}`, flow);
        expect(long?.at === "start" && long.trouble.length).toBeLessThan(400);
    });

    it("may be nothing", () => {
        expect(returned("/oidc", "?code=c", flow)).toMatchObject({ at: "start" });
        expect(returned("/oidc", "", flow)).toMatchObject({ at: "start" });
    });
});

it("goes to addresses of the web only", () => {
    expect(isWebAddress("https://id.example/authorize?x=1")).toBe(true);
    expect(isWebAddress("http://127.0.0.1:8080/authorize")).toBe(true);
    expect(isWebAddress("javascript:alert(1)")).toBe(false);
    expect(isWebAddress("/authorize")).toBe(false);
});
