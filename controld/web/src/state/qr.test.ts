import { expect, it } from "vitest";

import { drawing, groups, isOtpauth } from "./qr";

const URI = "otpauth://totp/Horcrux:alice%40local?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP&issuer=Horcrux";

it("draws runs of dark modules within a quiet zone", () => {
    const { size, path } = drawing(URI);
    const starts = [...path.matchAll(/M(\d+) (\d+)h(\d+)v1H(\d+)z/gu)].map((found) => found.slice(1, 5).map(Number));
    expect(starts.length).toBeGreaterThan(100);
    for (const [x = 0, y = 0, width = 0, back] of starts) {
        expect(back).toBe(x);
        expect(Math.min(x, y)).toBeGreaterThanOrEqual(4);
        expect(Math.max(x + width, y + 1)).toBeLessThanOrEqual(size - 4);
    }
    // The top edges of the two upper finders.
    expect(starts[0]).toEqual([4, 4, 7, 4]);
    expect(starts.filter(([, y]) => y === 4).at(-1)).toEqual([size - 11, 4, 7, size - 11]);
});

it("links to authenticators only", () => {
    expect(isOtpauth(URI)).toBe(true);
    expect(isOtpauth("javascript:alert(1)//otpauth://totp/")).toBe(false);
});

it("groups a secret for reading", () => {
    expect(groups("JBSWY3DPEH")).toEqual(["JBSW", "Y3DP", "EH"]);
    expect(groups("")).toEqual([]);
});
