import { afterEach, beforeEach, expect, it, vi } from "vitest";

import XT from "../../node_modules/@novnc/novnc/core/input/xtscancodes.js";
import { LAYOUTS, layoutOf } from "./layouts";
import { Typing, nameOf, plan, preview } from "./paste";

const ASCII = Array.from({ length: 95 }, (_, at) => String.fromCharCode(32 + at)).join("");

/** `⇧` Shift, `⌥` AltGr. */
function keys(text: string, layout: string): string {
    const signs: Record<string, string> = { ShiftLeft: "⇧", AltRight: "⌥" };
    return plan(text, layoutOf(layout))
        .steps.flatMap(({ strokes }) => strokes.filter(({ down }) => down).map(({ code }) => signs[code] ?? `${code} `))
        .join("")
        .trim();
}

it("writes all that a shell and a password need, on every keyboard", () => {
    for (const layout of LAYOUTS) {
        expect(plan(`${ASCII}\n\t`, layout).missing, layout.id).toEqual([]);
    }
});

it("has no key that QEMU doesn't know, and lets go of every key it pressed", () => {
    for (const layout of LAYOUTS) {
        for (const { character, strokes } of plan(ASCII, layout).steps) {
            const down = new Set<string>();
            for (const stroke of strokes) {
                expect(stroke.code in XT, `${layout.id} ${stroke.code}`).toBe(true);
                expect(down.has(stroke.code), `${layout.id} ${character}`).toBe(!stroke.down);
                down[stroke.down ? "add" : "delete"](stroke.code);
            }
            expect([...down], `${layout.id} ${character}`).toEqual([]);
        }
    }
});

it("presses what stands elsewhere where it stands", () => {
    expect(keys("Zy@", "us")).toBe("⇧KeyZ KeyY ⇧Digit2");
    expect(keys("Zy@\\|~", "de")).toBe("⇧KeyY KeyZ ⌥KeyQ ⌥Minus ⌥IntlBackslash ⌥BracketRight");
    expect(keys("az1é@[", "fr")).toBe("KeyQ KeyW ⇧Digit1 Digit2 ⌥Digit0 ⌥Digit5");
    expect(keys("@\"£#\\", "uk")).toBe("⇧Quote ⇧Digit2 ⇧Digit3 Backslash IntlBackslash");
    expect(keys("ñ@{|/", "es")).toBe("Semicolon ⌥Digit2 ⌥Quote ⌥Digit1 ⇧Digit7");
    expect(keys("@[]\\_|^", "jp")).toBe("BracketLeft BracketRight Backslash IntlRo ⇧IntlRo ⇧IntlYen Equal");
});

it("puts accents on letters with dead keys, and alone before a space", () => {
    expect(keys("^`é", "de")).toBe("Backquote Space ⇧Equal Space Equal KeyE");
    expect(keys("âÄ", "fr")).toBe("BracketLeft KeyQ ⇧BracketLeft ⇧KeyQ");
    expect(keys("áü", "es")).toBe("Quote KeyA ⇧Quote KeyU");
    expect(keys("e\u0301", "de")).toBe(keys("é", "de"));
});

it("knows where Windows has dead keys and Linux has none", () => {
    expect([keys("~`", "fr"), keys("~`", "fr-windows")]).toEqual(["⌥Digit2 ⌥Digit7", "⌥Digit2 Space ⌥Digit7 Space"]);
    expect([keys("~ã", "es"), keys("~ã", "es-windows")]).toEqual(["⌥Digit4", "⌥Digit4 Space ⌥Digit4 KeyA"]);
});

it("tells what a keyboard can't write", () => {
    expect(plan("naïve 日本 naïve", layoutOf("us")).missing).toEqual(["ï", "日", "本"]);
    expect(plan("a\u0000b\u{1F600}", layoutOf("de")).missing).toEqual(["\u0000", "\u{1F600}"]);
    expect(["ï", "\u0000", "\u00a0"].map(nameOf)).toEqual(["ï", "U+0000", "U+00A0"]);
});

it("ends a line with one Enter, however it was ended", () => {
    expect(keys("a\r\nb\rc\n", "us")).toBe("KeyA Enter KeyB Enter KeyC Enter");
});

it("shows what is typed, and its beginning where it is long", () => {
    expect(preview(plan("a\tb\nc", layoutOf("us")).steps)).toBe("a⇥b⏎\nc");
    expect(preview(plan("x".repeat(1000), layoutOf("us")).steps)).toBe(`${"x".repeat(400)} …`);
});

it("begins with a keyboard that is there", () => {
    expect(layoutOf("klingon").id).toBe("us");
});

beforeEach(() => {
    vi.useFakeTimers();
});
afterEach(() => {
    vi.useRealTimers();
});

it("types at the rate that is set, which may change while it runs, and stops when it is told to", () => {
    let sent = "";
    let rate = 10;
    const done = vi.fn();
    const typing = new Typing();
    typing.run(plan("abcdef", layoutOf("us")).steps, () => rate, ({ character }) => (sent += character), done);
    expect(sent).toBe("a");
    vi.advanceTimersByTime(100);
    expect(sent).toBe("ab");
    rate = 100;
    vi.advanceTimersByTime(110);
    expect(sent).toBe("abcd");
    typing.cancel();
    vi.advanceTimersByTime(10_000);
    expect(sent).toBe("abcd");
    expect(done).not.toHaveBeenCalled();
    typing.run(plan("g", layoutOf("us")).steps, () => rate, ({ character }) => (sent += character), done);
    vi.advanceTimersByTime(10);
    expect(sent).toBe("abcdg");
    expect(done).toHaveBeenCalledOnce();
});
