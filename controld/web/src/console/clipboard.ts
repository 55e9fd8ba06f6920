// The clipboard of whoever looks, only ever when a button is pressed.

export const NOT_READ = "The browser did not let this page read the clipboard: paste into the field instead.";
export const NOT_WRITTEN = "The browser did not let this page copy: select the text and copy it yourself.";

/** Undefined where the browser doesn't let the page. */
export async function readMine(): Promise<string | undefined> {
    try {
        return await navigator.clipboard.readText();
    } catch {
        return undefined;
    }
}

/** Whether it was let. */
export async function writeMine(text: string): Promise<boolean> {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        return false;
    }
}
