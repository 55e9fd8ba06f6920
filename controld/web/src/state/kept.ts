// What the browser keeps for the page. It may keep nothing: storage can be switched off, and then reading it throws.
export interface Shelf {
    get(key: string): string | undefined;
    /** Whether it was kept. */
    put(key: string, text: string): boolean;
    /** Gets it for the last time. */
    take(key: string): string | undefined;
}

export function shelf(open: () => Storage): Shelf {
    const get = (key: string): string | undefined => {
        try {
            return open().getItem(key) ?? undefined;
        } catch {
            return undefined;
        }
    };
    return {
        get,
        put: (key, text) => {
            try {
                open().setItem(key, text);
                return true;
            } catch {
                return false;
            }
        },
        take: (key) => {
            const found = get(key);
            if (found !== undefined) {
                open().removeItem(key);
            }
            return found;
        },
    };
}

/** From one visit to the next. */
export const lasting = shelf(() => window.localStorage);
/** In this tab only. */
export const ofTab = shelf(() => window.sessionStorage);

export const LAST_REALM = "horcrux.realm";
export const OIDC_FLOW = "horcrux.oidc-flow";
/** The console or the recording to come back to after a sign-in. */
export const CONSOLE = "horcrux.console";
export const CONSOLE_SIZE = "horcrux.console-size";
export const CONSOLE_QUALITY = "horcrux.console-quality";
export const CONSOLE_KEYBOARD = "horcrux.console-keyboard";
export const CONSOLE_RATE = "horcrux.console-rate";
