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

    /** What its decoders draw on. */
    interface Display {
        blitImage(x: number, y: number, width: number, height: number, pixels: Uint8Array, offset: number, fromQueue?: boolean): void;
        fillRect(x: number, y: number, width: number, height: number, colour: ArrayLike<number>, fromQueue?: boolean): void;
        flush(): Promise<void>;
    }

    interface Decoder {
        decodeRect(x: number, y: number, width: number, height: number, sock: unknown, display: Display, depth: number): boolean;
    }

    export default class RFB {
        constructor(target: Element, channel: Channel, options?: { shared?: boolean });
        background: string;
        clipViewport: boolean;
        focusOnClick: boolean;
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
        // Not of its interface, and only for replays, which wait for what it still draws and know how pixels lie.
        readonly _decoders: Record<number, Decoder>;
        readonly _display: Display;
        /** It waits for a picture, and takes nothing before that is there. */
        readonly _flushing: boolean;
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
