import { expect, it } from "vitest";

import { agent } from "./agent";

const KHTML = "AppleWebKit/537.36 (KHTML, like Gecko)";

it.each([
    ["Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0", "Firefox 131 on Linux"],
    [`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${KHTML} Chrome/129.0.0.0 Safari/537.36`, "Chrome 129 on Windows"],
    [`Mozilla/5.0 (Windows NT 10.0; Win64; x64) ${KHTML} Chrome/129.0.0.0 Safari/537.36 Edg/129.0.2`, "Edge 129 on Windows"],
    [`Mozilla/5.0 (X11; Linux x86_64) ${KHTML} Chrome/128.0.0.0 Safari/537.36 OPR/114.0.0.0`, "Opera 114 on Linux"],
    [`Mozilla/5.0 (Linux; Android 10; K) ${KHTML} Chrome/129.0.0.0 Mobile Safari/537.36`, "Chrome 129 on Android"],
    [`Mozilla/5.0 (X11; Linux x86_64) ${KHTML} HeadlessChrome/130.0.0.0 Safari/537.36`, "Chromium 130 on Linux"],
    [
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
        "Safari 18 on macOS",
    ],
    [
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
        "Safari 18 on iPhone",
    ],
    ["horcruxctl/0.1.0 tonic/0.14.9", "horcruxctl 0.1.0"],
    ["horcruxctl/0.1.0", "horcruxctl 0.1.0"],
])("takes %s for %s", (raw, name) => {
    // The controller keeps so much.
    expect(agent(raw.slice(0, 120))).toBe(name);
});

it.each([
    "",
    "curl/8.5.0",
    "grpc-python/1.66.1 grpc-c/43.0.0 (linux; chttp2)",
    "Firefox/131.0 on your own machine",
    "Mozilla/5.0 (compatible; something of its own/1.0)",
    // Cut off before the browser's name.
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "horcruxctl/0.1.0 and a story",
])("leaves %j as it came", (raw) => {
    expect(agent(raw)).toBe(raw);
});

it("is harmless text", () => {
    expect(agent("curl\u202E\u0007")).toBe("curl\uFFFD\uFFFD");
});
