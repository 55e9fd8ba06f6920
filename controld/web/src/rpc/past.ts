// The last minutes before this page looked, for each node whose course is drawn; few questions at a time.

import { Metric } from "../gen/horcrux/v1/metrics_pb";
import { SPAN_MS, type Course } from "../model/course";
import type { Connection } from "./session";

const AT_ONCE = 4;

export class Past {
  private readonly waiting: { name: string; course: Course }[] = [];
  private asking = 0;

  constructor(
    private readonly connection: () => Connection,
    private readonly loaded: () => void,
  ) {}

  load(name: string, course: Course): void {
    this.waiting.push({ name, course });
    void this.next();
  }

  private async next(): Promise<void> {
    if (this.asking >= AT_ONCE) return;
    const asked = this.waiting.shift();
    if (!asked) return;
    this.asking += 1;
    try {
      const answer = await this.connection().watch.getRecent({
        name: asked.name,
        metrics: [Metric.NODE_CPU_USAGE],
        seconds: SPAN_MS / 1000,
      });
      for (const { unixMs, values, gapMs } of answer.series) {
        const points = unixMs.map((ms, at) => ({ ms: Number(ms), value: values[at] ?? Number.NaN }));
        asked.course.past(points, gapMs);
      }
      this.loaded();
    } catch {
      // The course then begins where the page began, which it shows.
    } finally {
      this.asking -= 1;
      void this.next();
    }
  }
}
