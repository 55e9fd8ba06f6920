// The course of one value over the last minutes. Where nothing was measured there is nothing: a gap is never bridged.

import type { Metric } from "../gen/horcrux/v1/metrics_pb";
import type { Thing } from "./fleet";

export type Point = { ms: number; value: number };

export const SPAN_MS = 600_000;
const BUCKETS = 120;
const LEAST_GAP_MS = 10_000;

export class Course {
  private points: Point[] = [];
  private gapMs = LEAST_GAP_MS;

  // What was measured before this page looked.
  past(points: Point[], gapMs: number): void {
    const first = this.points[0]?.ms ?? Number.POSITIVE_INFINITY;
    this.points = [...points.filter((point) => point.ms < first), ...this.points];
    this.gapMs = Math.max(LEAST_GAP_MS, gapMs);
  }

  // NaN: measured, and absent.
  add(ms: number, value: number): void {
    const last = this.points.at(-1);
    if (last && ms <= last.ms) return;
    this.points.push({ ms, value });
    // Thrown away in lumps, so that it isn't done at each step.
    if (this.points.length > 2000) this.points = this.points.filter((point) => point.ms > ms - SPAN_MS);
  }

  // An SVG path over the last minutes before `endMs`, for a value of 0 to `top`; a move starts each stretch.
  path(endMs: number, width: number, height: number, top: number): string {
    const step = SPAN_MS / BUCKETS;
    const startMs = Math.floor((endMs - SPAN_MS) / step) * step;
    let path = "";
    let before: number | undefined;
    for (const { ms, value } of means(this.points, startMs, step)) {
      const x = ((ms - startMs) / SPAN_MS) * width;
      const y = height - (Math.min(Math.max(value, 0), top) / top) * height;
      const joined = before !== undefined && ms - before <= this.gapMs;
      path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      // A lone point would be invisible.
      if (!joined) path += "h0.5";
      before = ms;
    }
    return path;
  }
}

// The courses of one metric, of those things that are looked at.
export class Courses {
  private readonly courses = new Map<string, Course>();

  constructor(
    private readonly metric: Metric,
    private readonly begins: (name: string, course: Course) => void,
  ) {}

  of(name: string): Course {
    let course = this.courses.get(name);
    if (!course) {
      course = new Course();
      this.courses.set(name, course);
      this.begins(name, course);
    }
    return course;
  }

  remember<T extends { name: string }>(things: readonly Thing<T>[]): void {
    for (const { object, sampledMs, values } of things) {
      if (sampledMs === undefined) continue;
      this.courses.get(object.name)?.add(sampledMs, values.get(this.metric) ?? Number.NaN);
    }
  }
}

// One mean for each bucket that has values; an absence ends its bucket and is left out.
function means(points: readonly Point[], startMs: number, step: number): Point[] {
  const found: Point[] = [];
  let bucket = -1;
  let sum = 0;
  let count = 0;
  const close = () => {
    if (count > 0) found.push({ ms: startMs + (bucket + 0.5) * step, value: sum / count });
    sum = 0;
    count = 0;
  };
  for (const { ms, value } of points) {
    if (ms < startMs) continue;
    const at = Math.floor((ms - startMs) / step);
    if (at !== bucket) {
      close();
      bucket = at;
    }
    if (Number.isFinite(value)) {
      sum += value;
      count += 1;
    }
  }
  close();
  return found;
}
