// Fetches what was measured before the page was opened, a few objects at a time.
import type { Metric } from "../gen/horcrux/v1/metrics_pb";
import type { RecentSeries, RecordedGap } from "../gen/horcrux/v1/watch_service_pb";
import { watch } from "./clients";

const AT_ONCE = 4;

export async function fetchRecent(
    names: readonly string[],
    metric: Metric,
    seconds: number,
    signal: AbortSignal,
    got: (name: string, series: RecentSeries, lost: readonly RecordedGap[]) => void,
): Promise<void> {
    const waiting = names.values();
    const worker = async (): Promise<void> => {
        for (const name of waiting) {
            if (signal.aborted) {
                return;
            }
            try {
                const answer = await watch.getRecent({ name, metrics: [metric], seconds }, { signal, timeoutMs: 15_000 });
                const series = answer.series.find((one) => one.metric === metric);
                if (series !== undefined) {
                    got(name, series, answer.gaps);
                }
            } catch {
                // The past is missing then, and the chart shows it as a gap. What is live comes all the same.
                continue;
            }
        }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
