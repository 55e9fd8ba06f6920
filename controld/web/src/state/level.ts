// How full something is: the one place that knows the thresholds.
export type Level = "ok" | "busy" | "high" | "critical";

export function level(percent: number): Level {
    if (percent >= 90) {
        return "critical";
    }
    if (percent >= 75) {
        return "high";
    }
    return percent >= 50 ? "busy" : "ok";
}
