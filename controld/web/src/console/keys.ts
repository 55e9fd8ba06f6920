// Keys by where they are on a keyboard, as noVNC sends them: the physical key for QEMU, the X11 keysym for others. Pure.

export interface Key {
    /** As KeyboardEvent.code. */
    readonly code: string;
    readonly keysym: number;
}

export interface Stroke extends Key {
    readonly down: boolean;
}

/** X11's keysym of a character. */
export function keysymOf(character: string): number {
    const point = character.codePointAt(0) ?? 0;
    switch (character) {
        case "\n":
            return 0xff0d;
        case "\t":
            return 0xff09;
        default:
            return point < 0x100 ? point : 0x0100_0000 + point;
    }
}

export const SHIFT: Key = { code: "ShiftLeft", keysym: 0xffe1 };
export const CTRL: Key = { code: "ControlLeft", keysym: 0xffe3 };
export const ALT: Key = { code: "AltLeft", keysym: 0xffe9 };
export const ALT_GR: Key = { code: "AltRight", keysym: 0xfe03 };
export const WINDOWS: Key = { code: "MetaLeft", keysym: 0xffeb };

/** These stay down until they are pressed again. */
export const MODIFIERS: readonly { readonly label: string; readonly key: Key }[] = [
    { label: "Ctrl", key: CTRL },
    { label: "Alt", key: ALT },
    { label: "Shift", key: SHIFT },
    { label: "AltGr", key: ALT_GR },
    { label: "Windows", key: WINDOWS },
];

const FUNCTION_KEYS: readonly Key[] = Array.from({ length: 12 }, (_, at) => ({ code: `F${at + 1}`, keysym: 0xffbe + at }));

const letter = (text: string): Key => ({ code: `Key${text.toUpperCase()}`, keysym: keysymOf(text) });

export interface Combination {
    readonly label: string;
    /** Pressed in this order, let go in the other. */
    readonly keys: readonly Key[];
}

export interface Group {
    readonly title: string;
    readonly combinations: readonly Combination[];
}

const DELETE: Key = { code: "Delete", keysym: 0xffff };
const ESCAPE: Key = { code: "Escape", keysym: 0xff1b };
const TAB: Key = { code: "Tab", keysym: 0xff09 };

export const CTRL_ALT_DEL: Combination = { label: "Ctrl-Alt-Del", keys: [CTRL, ALT, DELETE] };

export const GROUPS: readonly Group[] = [
    {
        title: "Together",
        combinations: [
            CTRL_ALT_DEL,
            { label: "Ctrl-Alt-Backspace", keys: [CTRL, ALT, { code: "Backspace", keysym: 0xff08 }] },
            { label: "Alt-Tab", keys: [ALT, TAB] },
            { label: "Alt-F4", keys: [ALT, { code: "F4", keysym: 0xffc1 }] },
            { label: "Ctrl-Shift-Esc", keys: [CTRL, SHIFT, ESCAPE] },
            { label: "Windows-L", keys: [WINDOWS, letter("l")] },
            { label: "Windows-R", keys: [WINDOWS, letter("r")] },
        ],
    },
    {
        title: "Single keys",
        combinations: [
            { label: "Esc", keys: [ESCAPE] },
            { label: "Tab", keys: [TAB] },
            { label: "Windows", keys: [WINDOWS] },
            { label: "Menu", keys: [{ code: "ContextMenu", keysym: 0xff67 }] },
            { label: "Print Screen", keys: [{ code: "PrintScreen", keysym: 0xff61 }] },
            { label: "Scroll Lock", keys: [{ code: "ScrollLock", keysym: 0xff14 }] },
            { label: "Pause", keys: [{ code: "Pause", keysym: 0xff13 }] },
            { label: "Insert", keys: [{ code: "Insert", keysym: 0xff63 }] },
            { label: "Del", keys: [DELETE] },
        ],
    },
    { title: "Function keys", combinations: FUNCTION_KEYS.map((key) => ({ label: key.code, keys: [key] })) },
    {
        title: "Linux terminals",
        combinations: FUNCTION_KEYS.map((key) => ({ label: `Ctrl-Alt-${key.code}`, keys: [CTRL, ALT, key] })),
    },
];

/** Every key that went down goes up. What is held down already stays so. */
export function strokes(keys: readonly Key[], held: ReadonlySet<string> = new Set()): Stroke[] {
    const pressed = keys.filter(({ code }) => !held.has(code));
    return [
        ...pressed.map((key) => ({ ...key, down: true })),
        ...pressed.toReversed().map((key) => ({ ...key, down: false })),
    ];
}
