import { expect, it } from "vitest";

import { shelf } from "./kept";

function memory(): Storage {
    const held = new Map<string, string>();
    return {
        get length() {
            return held.size;
        },
        clear: () => {
            held.clear();
        },
        key: () => null,
        getItem: (key) => held.get(key) ?? null,
        setItem: (key, text) => {
            held.set(key, text);
        },
        removeItem: (key) => {
            held.delete(key);
        },
    };
}

it("keeps, and gives for the last time", () => {
    const storage = memory();
    const kept = shelf(() => storage);
    expect(kept.put("a", "1")).toBe(true);
    expect(kept.get("a")).toBe("1");
    expect(kept.take("a")).toBe("1");
    expect(kept.take("a")).toBeUndefined();
});

it("does without where the browser keeps nothing", () => {
    const kept = shelf(() => {
        throw new DOMException("denied", "SecurityError");
    });
    expect(kept.put("a", "1")).toBe(false);
    expect(kept.get("a")).toBeUndefined();
    expect(kept.take("a")).toBeUndefined();
});
