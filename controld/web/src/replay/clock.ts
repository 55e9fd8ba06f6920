// Where a player is. Pure: time is told to it.

export const SPEEDS = [0.5, 1, 2, 4, 8, 16] as const;
export type Speed = (typeof SPEEDS)[number];
/** Where nothing happens for longer, the rest of that is passed over, if that is wanted. */
export const IDLE_MS = 2000;

/** The moments at which something happens, in order. */
export interface Moments {
    readonly count: number;
    at(index: number): number;
    /** How many there are up to a moment. */
    upTo(at: number): number;
}

/** Where it is after so many milliseconds of the recording's time. `idle`: how long nothing may happen. */
export function advance(moments: Moments, from: number, ms: number, idle: number | undefined): number {
    let [at, left] = [from, ms];
    for (let index = moments.upTo(at); index < moments.count; index = moments.upTo(at)) {
        const next = moments.at(index);
        // What was before the first is the beginning.
        const quietFrom = (index === 0 ? 0 : moments.at(index - 1)) + (idle ?? Infinity);
        if (quietFrom < next && at + left >= quietFrom) {
            left -= Math.max(0, quietFrom - at);
            at = next;
        } else if (at + left < next) {
            return at + left;
        } else {
            left -= next - at;
            at = next;
        }
    }
    return at;
}

/** The next speed up or down. */
export function stepped(speed: Speed, by: 1 | -1): Speed {
    return SPEEDS[SPEEDS.indexOf(speed) + by] ?? speed;
}

/** `1:02`, `1:00:02`; with tenths of a second `0:02.3`. */
export function length(ms: number, tenths = false): string {
    const seconds = Math.floor(Math.max(0, ms) / 1000);
    const two = (value: number): string => String(value).padStart(2, "0");
    const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
    const whole = hours === 0 ? `${minutes}:${two(seconds % 60)}` : `${hours}:${two(minutes)}:${two(seconds % 60)}`;
    return tenths ? `${whole}.${Math.floor(Math.max(0, ms) / 100) % 10}` : whole;
}
