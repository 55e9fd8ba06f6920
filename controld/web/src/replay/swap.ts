// noVNC's decoders, of a viewer that had blue where noVNC has red: those that take pixels as the viewer wanted them. Tight and
// JPEG have an order of their own.
import type RFB from "@novnc/novnc";

type Display = RFB["_display"];
type Decoder = RFB["_decoders"][number];

const RAW = 0;
const RRE = 2;
const HEXTILE = 5;
const ZLIB = 6;
const ZRLE = 16;

const swapped = new WeakSet<RFB>();

/** Does it once. */
export function swapColours(rfb: RFB): void {
    if (swapped.has(rfb)) {
        return;
    }
    swapped.add(rfb);
    const display = swapping(rfb._display);
    for (const encoding of [RAW, RRE, HEXTILE, ZLIB, ZRLE]) {
        const decoder = rfb._decoders[encoding];
        if (decoder !== undefined) {
            rfb._decoders[encoding] = drawingOn(decoder, display);
        }
    }
}

function drawingOn(decoder: Decoder, display: Display): Decoder {
    return {
        decodeRect: (x, y, width, height, sock, _, depth) => decoder.decodeRect(x, y, width, height, sock, display, depth),
    };
}

function swapping(display: Display): Display {
    return {
        blitImage: (x, y, width, height, pixels, offset, fromQueue) => {
            display.blitImage(x, y, width, height, turned(pixels.subarray(offset, offset + width * height * 4)), 0, fromQueue);
        },
        fillRect: (x, y, width, height, colour, fromQueue) => {
            display.fillRect(x, y, width, height, [colour[2] ?? 0, colour[1] ?? 0, colour[0] ?? 0], fromQueue);
        },
        flush: () => display.flush(),
    };
}

/** A copy, for the decoder goes on with its own. */
export function turned(pixels: Uint8Array): Uint8Array {
    const copy = pixels.slice();
    for (let at = 0; at + 2 < copy.length; at += 4) {
        [copy[at], copy[at + 2]] = [copy[at + 2] ?? 0, copy[at] ?? 0];
    }
    return copy;
}
