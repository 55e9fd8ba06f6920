// What is used of noVNC 1.7, which has no types of its own.
declare module "@novnc/novnc" {
    import type { Channel } from "./channel";

    interface Events {
        connect: CustomEvent<object>;
        disconnect: CustomEvent<{ clean: boolean }>;
        desktopname: CustomEvent<{ name: string }>;
        clipboard: CustomEvent<{ text: string }>;
        credentialsrequired: CustomEvent<{ types: string[] }>;
        securityfailure: CustomEvent<{ status: number; reason?: string }>;
        bell: CustomEvent<object>;
    }

    export default class RFB {
        constructor(target: Element, channel: Channel, options?: { shared?: boolean });
        background: string;
        clipViewport: boolean;
        compressionLevel: number;
        qualityLevel: number;
        scaleViewport: boolean;
        viewOnly: boolean;
        addEventListener<Name extends keyof Events>(name: Name, heard: (event: Events[Name]) => void): void;
        blur(): void;
        clipboardPasteFrom(text: string): void;
        disconnect(): void;
        focus(options?: FocusOptions): void;
        sendKey(keysym: number, code: string, down: boolean): void;
    }
}

declare module "*/xtscancodes.js" {
    const codes: Readonly<Record<string, number>>;
    export default codes;
}

declare module "*/keysym.js" {
    const table: Readonly<Record<string, number>>;
    export default table;
}
