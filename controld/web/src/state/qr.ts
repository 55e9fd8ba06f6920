// A QR code as one path of an SVG.
import { encode } from "uqr";

export interface Drawing {
    /** Modules at each side, with the quiet zone. */
    readonly size: number;
    readonly path: string;
}

/** The standard asks for four light modules all around. */
const QUIET_ZONE = 4;

export function drawing(text: string): Drawing {
    const { size, data } = encode(text, { ecc: "M", border: QUIET_ZONE });
    let path = "";
    data.forEach((row, y) => {
        let x = 0;
        while (x < row.length) {
            const start = x;
            while (row[x] === true) {
                x += 1;
            }
            if (x > start) {
                path += `M${start} ${y}h${x - start}v1H${start}z`;
            }
            x += 1;
        }
    });
    return { size, path };
}

/** Whether a link may lead there. */
export function isOtpauth(uri: string): boolean {
    return uri.startsWith("otpauth://totp/");
}

/** A secret in the groups that people read it in. */
export function groups(secret: string): readonly string[] {
    return secret.match(/.{1,4}/gu) ?? [];
}
