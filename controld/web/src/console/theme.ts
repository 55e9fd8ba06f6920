// How a serial line looks.
import type { ITheme } from "@xterm/xterm";

export const DARK: ITheme = { background: "#11151a", foreground: "#dfe6ee", cursor: "#7db4ff", selectionBackground: "#33506f" };
export const LIGHT: ITheme = { background: "#ffffff", foreground: "#17202b", cursor: "#1f5fbf", selectionBackground: "#bcd5f5" };
export const FONT = 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace';
