import { expect, it } from "vitest";

import XT from "../../node_modules/@novnc/novnc/core/input/xtscancodes.js";
import KeyTable from "../../node_modules/@novnc/novnc/core/input/keysym.js";
import { CTRL, CTRL_ALT_DEL, GROUPS, MODIFIERS, keysymOf, strokes } from "./keys";

const all = GROUPS.flatMap(({ combinations }) => combinations);

it("has only keys that QEMU knows by their place", () => {
    const codes = [...all.flatMap(({ keys }) => keys), ...MODIFIERS.map(({ key }) => key)].map(({ code }) => code);
    expect(codes.filter((code) => !(code in XT))).toEqual([]);
});

it("presses in order, and lets go of everything the other way round", () => {
    expect(strokes(CTRL_ALT_DEL.keys).map(({ code, down }) => `${down ? "+" : "-"}${code}`)).toEqual([
        "+ControlLeft",
        "+AltLeft",
        "+Delete",
        "-Delete",
        "-AltLeft",
        "-ControlLeft",
    ]);
});

it("leaves a key down that is held", () => {
    const pressed = strokes(CTRL_ALT_DEL.keys, new Set([CTRL.code])).map(({ code }) => code);
    expect(pressed).toEqual(["AltLeft", "Delete", "Delete", "AltLeft"]);
});

it("names each combination once, and calls keys as X11 does", () => {
    const labels = all.map(({ label }) => label);
    expect(new Set(labels).size).toBe(labels.length);
    expect(all.find(({ label }) => label === "F12")?.keys[0]?.keysym).toBe(KeyTable.XK_F12);
    expect(all.find(({ label }) => label === "Print Screen")?.keys[0]?.keysym).toBe(KeyTable.XK_Print);
    expect(keysymOf("ä")).toBe(KeyTable.XK_adiaeresis);
    expect(keysymOf("€")).toBe(0x010020ac);
    expect(keysymOf("\n")).toBe(KeyTable.XK_Return);
});
