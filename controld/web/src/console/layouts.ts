// What each key of a keyboard gives, by country. Pure data, and how it is read.
//
// A key's levels are alone, with Shift, with AltGr, with both. `∅`: nothing. `+^`: a dead key, which goes on the next letter.
import { type Key, keysymOf } from "./keys";

export interface Layout {
    readonly id: string;
    readonly title: string;
    /** How each character is typed that one key gives. */
    readonly keys: ReadonlyMap<string, Press>;
    /** The dead keys, by the combining character that each makes. */
    readonly dead: ReadonlyMap<string, Press>;
}

export interface Press extends Key {
    readonly shift: boolean;
    readonly altGr: boolean;
}

type Rows = Readonly<Record<string, string>>;

const LETTERS: Rows = Object.fromEntries(
    Array.from("abcdefghijklmnopqrstuvwxyz", (letter) => [`Key${letter.toUpperCase()}`, `${letter} ${letter.toUpperCase()}`]),
);

const US: Rows = {
    ...LETTERS,
    Backquote: "` ~", Digit1: "1 !", Digit2: "2 @", Digit3: "3 #", Digit4: "4 $", Digit5: "5 %", Digit6: "6 ^", Digit7: "7 &",
    Digit8: "8 *", Digit9: "9 (", Digit0: "0 )", Minus: "- _", Equal: "= +", BracketLeft: "[ {", BracketRight: "] }",
    Backslash: "\\ |", Semicolon: "; :", Quote: "' \"", Comma: ", <", Period: ". >", Slash: "/ ?",
};

const UK: Rows = {
    ...US,
    Backquote: "` ¬", Digit2: "2 \"", Digit3: "3 £", Digit4: "4 $ €", Quote: "' @", Backslash: "# ~", IntlBackslash: "\\ |",
};

const DE: Rows = {
    ...LETTERS,
    KeyY: "z Z", KeyZ: "y Y", KeyQ: "q Q @", KeyE: "e E €", KeyM: "m M µ",
    Backquote: "+^ °", Digit1: "1 !", Digit2: "2 \" ²", Digit3: "3 § ³", Digit4: "4 $", Digit5: "5 %", Digit6: "6 &",
    Digit7: "7 / {", Digit8: "8 ( [", Digit9: "9 ) ]", Digit0: "0 = }", Minus: "ß ? \\", Equal: "+´ +`",
    BracketLeft: "ü Ü", BracketRight: "+ * ~", Semicolon: "ö Ö", Quote: "ä Ä", Backslash: "# '", IntlBackslash: "< > |",
    Comma: ", ;", Period: ". :", Slash: "- _",
};

const FR: Rows = {
    ...LETTERS,
    KeyA: "q Q", KeyQ: "a A", KeyW: "z Z", KeyZ: "w W", KeyE: "e E €", Semicolon: "m M", KeyM: ", ?",
    Backquote: "²", Digit1: "& 1", Digit2: "é 2 ~", Digit3: "\" 3 #", Digit4: "' 4 {", Digit5: "( 5 [", Digit6: "- 6 |",
    Digit7: "è 7 `", Digit8: "_ 8 \\", Digit9: "ç 9 ^", Digit0: "à 0 @", Minus: ") ° ]", Equal: "= + }",
    BracketLeft: "+^ +¨", BracketRight: "$ £ ¤", Quote: "ù %", Backslash: "* µ", IntlBackslash: "< >",
    Comma: "; .", Period: ": /", Slash: "! §",
};

const ES: Rows = {
    ...LETTERS,
    KeyE: "e E €",
    Backquote: "º ª \\", Digit1: "1 ! |", Digit2: "2 \" @", Digit3: "3 · #", Digit4: "4 $ ~", Digit5: "5 %", Digit6: "6 & ¬",
    Digit7: "7 /", Digit8: "8 (", Digit9: "9 )", Digit0: "0 =", Minus: "' ?", Equal: "¡ ¿", BracketLeft: "+` +^ [",
    BracketRight: "+ * ]", Semicolon: "ñ Ñ", Quote: "+´ +¨ {", Backslash: "ç Ç }", IntlBackslash: "< >",
    Comma: ", ;", Period: ". :", Slash: "- _",
};

// The yen key writes a backslash too, but what it shows depends on the guest.
const JP: Rows = {
    ...LETTERS,
    Digit1: "1 !", Digit2: "2 \"", Digit3: "3 #", Digit4: "4 $", Digit5: "5 %", Digit6: "6 &", Digit7: "7 '", Digit8: "8 (",
    Digit9: "9 )", Digit0: "0", Minus: "- =", Equal: "^ ~", IntlYen: "∅ |", BracketLeft: "@ `", BracketRight: "[ {",
    Semicolon: "; +", Quote: ": *", Backslash: "] }", IntlRo: "\\ _", Comma: ", <", Period: ". >", Slash: "/ ?",
};

/** The combining character of a dead key. */
const COMBINING: Readonly<Record<string, string>> = {
    "^": "\u0302", "´": "\u0301", "`": "\u0300", "¨": "\u0308", "~": "\u0303",
};

export const LAYOUTS: readonly Layout[] = [
    layout("us", "English (US)", US),
    layout("uk", "English (UK)", UK),
    layout("de", "German", DE),
    layout("fr", "French", FR),
    // There these two are dead keys.
    layout("fr-windows", "French, in Windows", { ...FR, Digit2: "é 2 +~", Digit7: "è 7 +`" }),
    layout("es", "Spanish", ES),
    layout("es-windows", "Spanish, in Windows", { ...ES, Digit4: "4 $ +~" }),
    layout("jp", "Japanese", JP),
];

export function layoutOf(id: string | undefined): Layout {
    return LAYOUTS.find((one) => one.id === id) ?? layout("us", "English (US)", US);
}

function layout(id: string, title: string, rows: Rows): Layout {
    const keys = new Map<string, Press>();
    const dead = new Map<string, Press>();
    for (const [code, levels] of Object.entries(rows)) {
        for (const [level, given] of levels.split(" ").entries()) {
            const isDead = given.length === 2 && given.startsWith("+");
            const character = isDead ? given.slice(1) : given;
            const press: Press = { code, keysym: keysymOf(character), shift: level % 2 === 1, altGr: level >= 2 };
            if (isDead) {
                dead.set(COMBINING[character] ?? character, press);
            } else if (character !== "∅" && !keys.has(character)) {
                keys.set(character, press);
            }
        }
    }
    keys.set(" ", { code: "Space", keysym: 0x20, shift: false, altGr: false });
    keys.set("\n", { code: "Enter", keysym: keysymOf("\n"), shift: false, altGr: false });
    keys.set("\t", { code: "Tab", keysym: keysymOf("\t"), shift: false, altGr: false });
    return { id, title, keys, dead };
}
