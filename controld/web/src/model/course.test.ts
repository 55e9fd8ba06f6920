import { expect, test } from "vitest";
import { Course, SPAN_MS } from "./course";

const END = 10 * SPAN_MS;
const stretches = (path: string) => path.split("M").length - 1;

function course(from: number, to: number, value: (ms: number) => number): Course {
  const course = new Course();
  for (let ms = from; ms <= to; ms += 1000) course.add(ms, value(ms));
  return course;
}

test("an unbroken course is one stretch", () => {
  expect(stretches(course(END - 60_000, END, () => 50).path(END, 120, 20, 100))).toBe(1);
});

test("a time without values is a gap, not a line", () => {
  const broken = course(END - 60_000, END - 40_000, () => 50);
  for (let ms = END - 20_000; ms <= END; ms += 1000) broken.add(ms, 50);
  expect(stretches(broken.path(END, 120, 20, 100))).toBe(2);
});

test("an absent value is a gap, and not zero", () => {
  const absent = course(END - 60_000, END, (ms) => (ms > END - 40_000 && ms < END - 20_000 ? Number.NaN : 100));
  const path = absent.path(END, 120, 20, 100);
  expect(stretches(path)).toBe(2);
  expect(path).not.toContain(" 20.0");
});

test("a node that is read seldom has a line all the same", () => {
  const slow = new Course();
  slow.past([0, 1, 2, 3].map((at) => ({ ms: END - 120_000 + at * 30_000, value: 10 })), 90_000);
  expect(stretches(slow.path(END, 120, 20, 100))).toBe(1);
});

test("the past comes before what was seen, once", () => {
  const seen = course(END - 5000, END, () => 50);
  seen.past([{ ms: END - 7000, value: 50 }, { ms: END - 5000, value: 99 }], 0);
  expect(stretches(seen.path(END, 120, 20, 100))).toBe(1);
  expect(seen.path(END, 120, 20, 100)).not.toContain("0.2");
});

test("nothing is drawn of what is older than the span", () => {
  expect(course(END - 3 * SPAN_MS, END - 2 * SPAN_MS, () => 50).path(END, 120, 20, 100)).toBe("");
});
