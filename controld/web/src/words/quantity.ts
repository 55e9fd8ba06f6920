// Numbers with their units. Bytes are binary everywhere: 1 KiB is 1024 B.
import { Unit } from "../gen/horcrux/v1/metrics_pb";

export const NONE = "–";

const DECIMAL = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"] as const;
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export function quantity(value: number, unit: Unit): string {
    switch (unit) {
        case Unit.BYTES:
            return bytes(value);
        case Unit.BYTES_PER_SECOND:
            return `${bytes(value)}/s`;
        case Unit.NANOSECONDS:
            return duration(value / 1e6);
        case Unit.SECONDS:
            return duration(value * 1000);
        case Unit.PERCENT:
            return percent(value);
        case Unit.PER_SECOND:
            return `${number(value)}/s`;
        case Unit.CELSIUS:
            return `${value.toFixed(1)} °C`;
        case Unit.RPM:
            return `${value.toFixed(0)} rpm`;
        case Unit.BITS_PER_SECOND:
            return bitsPerSecond(value);
        case Unit.COUNT:
        case Unit.UNSPECIFIED:
            return number(value);
    }
}

export function percent(value: number): string {
    return `${value.toFixed(1)} %`;
}

/** Three digits, or four just below the next unit. */
export function bytes(value: number): string {
    let scaled = value;
    let step = 0;
    // 1023.5 would be shown as 1024.
    while (Math.abs(scaled) >= 1023.5 && step < BINARY.length - 1) {
        scaled /= 1024;
        step += 1;
    }
    return `${scaled.toFixed(step === 0 || Math.abs(scaled) >= 99.95 ? 0 : 1)} ${BINARY[step] ?? ""}`;
}

/** Of network links, where a thousand is a thousand. */
function bitsPerSecond(value: number): string {
    let scaled = value;
    let step = 0;
    while (Math.abs(scaled) >= 999.95 && step < DECIMAL.length - 1) {
        scaled /= 1000;
        step += 1;
    }
    return `${Number(scaled.toFixed(1))} ${DECIMAL[step] ?? ""}`;
}

export function number(value: number): string {
    return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(2);
}

/** Its two largest parts at most. */
export function duration(ms: number): string {
    const seconds = Math.max(0, Math.floor(ms / 1000));
    if (ms > 0 && ms < 0.9995) {
        return `${Math.round(ms * 1000)} µs`;
    }
    if (ms > 0 && ms < 1000) {
        return `${Math.round(ms)} ms`;
    }
    if (seconds < 60) {
        return `${seconds} s`;
    }
    const minutes = Math.floor(seconds / 60);
    if (minutes < 60) {
        return `${minutes} min`;
    }
    const hours = Math.floor(minutes / 60);
    return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Its largest part. */
export function about(ms: number): string {
    return /^\d+ \S+/u.exec(duration(ms))?.[0] ?? "";
}

export function clock(unixMs: number): string {
    return new Date(unixMs).toLocaleTimeString("en-GB");
}

export function moment(unixMs: number): string {
    return new Date(unixMs).toISOString().replace("T", " ").replace(/\.\d+Z$/u, " UTC");
}

/** Below it a clock's offset is the network's delay as likely as the clock's. */
const MEANT_MS = 1000;

/** How far a node's clock is ahead of the controller's, in words. */
export function clockOffset(ms: number | undefined): string {
    if (ms === undefined) {
        return "";
    }
    if (Math.abs(ms) < MEANT_MS) {
        return "agrees with the controller's (within 1 s)";
    }
    return `${duration(Math.abs(ms))} ${ms < 0 ? "behind" : "ahead of"} the controller's`;
}
