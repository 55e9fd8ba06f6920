import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";

import { VmState, VmStateSchema } from "../gen/horcrux/v1/inventory_pb";
import { Unit } from "../gen/horcrux/v1/metrics_pb";
import { NodeState, NodeStateSchema } from "../gen/horcrux/v1/node_service_pb";
import { problem, problemSeeing } from "./problem";
import { clockOffset, duration, quantity } from "./quantity";
import { bare, plain, word } from "./text";

it.each([
    [0, Unit.BYTES, "0 B"],
    [1023, Unit.BYTES, "1023 B"],
    [1024, Unit.BYTES, "1.0 KiB"],
    [1024 ** 2 - 1, Unit.BYTES, "1.0 MiB"],
    [110.04 * 1024, Unit.BYTES, "110 KiB"],
    [99.96 * 1024, Unit.BYTES, "100 KiB"],
    [1023.6 * 1024, Unit.BYTES, "1.0 MiB"],
    [16 * 1024 ** 3, Unit.BYTES, "16.0 GiB"],
    [1536, Unit.BYTES_PER_SECOND, "1.5 KiB/s"],
    [99.96, Unit.PERCENT, "100.0 %"],
    [0.05, Unit.COUNT, "0.05"],
    [12345, Unit.COUNT, "12,345"],
    [93_600, Unit.SECONDS, "1 d 2 h"],
    [80_400, Unit.NANOSECONDS, "80 µs"],
    [45.125, Unit.CELSIUS, "45.1 °C"],
    [1200, Unit.RPM, "1200 rpm"],
    [1e10, Unit.BITS_PER_SECOND, "10 Gbit/s"],
    [2.5e9, Unit.BITS_PER_SECOND, "2.5 Gbit/s"],
])("writes %d (%d) as %s", (value, unit, expected) => {
    expect(quantity(value, unit)).toBe(expected);
});

it.each([
    [0, "0 s"],
    [40, "40 ms"],
    [59_999, "59 s"],
    [61_000, "1 min"],
    [3_660_000, "1 h 1 min"],
])("writes %d ms as %s", (ms, expected) => {
    expect(duration(ms)).toBe(expected);
});

describe("words", () => {
    it("are made from the contract's enums", () => {
        expect(word(NodeStateSchema, NodeState.NEVER_SEEN)).toBe("never seen");
        expect(word(VmStateSchema, VmState.SHUT_OFF)).toBe("shut off");
        expect(word(VmStateSchema, 0)).toBe("unknown");
        expect(word(VmStateSchema, 99)).toBe("unknown");
    });

    it("show what would not be seen or would reorder", () => {
        expect(plain("a\u202Eb\u0007c\u200B")).toBe("a\uFFFDb\uFFFDc\uFFFD");
        expect(plain("Größe 日本 🎉")).toBe("Größe 日本 🎉");
        expect(bare("containers/n1/abc")).toBe("n1/abc");
    });
});

describe("a problem", () => {
    it("is told as the controller said it", () => {
        expect(problem(new ConnectError("wrong user name or password", Code.Unauthenticated))).toBe("Wrong user name or password.");
    });

    it("calls a field as the form does", () => {
        const told = (text: string) =>
            problem(new ConnectError(text, Code.InvalidArgument), { old_password: "Password now", password: "New password" });
        expect(told("old_password: this is not your password")).toBe("Password now: this is not your password.");
        expect(told("password: at least 10 characters")).toBe("New password: at least 10 characters.");
        expect(told("request_id: at most 128 bytes")).toBe("Request id: at most 128 bytes.");
        expect(told("old_password, page_size: x")).toBe("Password now, page size: x.");
        expect(told("no VM \"a_b\" exists: look again")).toBe("No VM \"a_b\" exists: look again.");
    });

    it("is what the controller says, where it slows down", () => {
        expect(problem(new ConnectError("too many failures: wait 8 seconds", Code.ResourceExhausted))).toBe(
            "Too many failures: wait 8 seconds.",
        );
    });

    it("tells the absent and the forbidden alike", () => {
        const seen = [Code.PermissionDenied, Code.NotFound].map((code) => problemSeeing(new ConnectError("n9", code)));
        expect(new Set(seen)).toEqual(new Set(["It is not there, or it isn't yours to see."]));
        expect(problemSeeing(new ConnectError("no", Code.Unavailable))).toMatch(/does not answer/u);
    });

    it("says when nothing was reached", () => {
        expect(problem(new TypeError("Failed to fetch"))).toMatch(/does not answer/u);
        expect(problem(new ConnectError("x", Code.Unavailable))).toMatch(/does not answer/u);
    });
});

it("takes a clock's offset for the network's delay until it is a second", () => {
    expect(clockOffset(undefined)).toBe("");
    expect(clockOffset(-116)).toBe("agrees with the controller's (within 1 s)");
    expect(clockOffset(-62_000)).toMatch(/behind the controller's$/u);
    expect(clockOffset(7_500)).toMatch(/ahead of the controller's$/u);
});
