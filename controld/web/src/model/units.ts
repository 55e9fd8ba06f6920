// Values as people read them. Bytes are in powers of 1024.

const PREFIXES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value: number): string {
  let at = 0;
  let scaled = value;
  while (scaled >= 1024 && at < PREFIXES.length - 1) {
    scaled /= 1024;
    at += 1;
  }
  const digits = at === 0 || scaled >= 100 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${PREFIXES[at] ?? ""}`;
}

export function rate(value: number): string {
  return `${bytes(value)}/s`;
}

export function percent(value: number): string {
  return `${value.toFixed(1)} %`;
}

export function load(value: number): string {
  return value.toFixed(value >= 100 ? 0 : 2);
}

export function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

export function duration(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

export function clock(unixMs: number): string {
  return new Date(unixMs).toLocaleTimeString("en-GB");
}

export type Level = "ok" | "busy" | "high" | "critical";

// For those who don't see colours, each level has a mark and a word too.
export const LEVELS: Record<Level, { mark: string; word: string }> = {
  ok: { mark: "", word: "OK" },
  busy: { mark: "~", word: "busy, from 50 %" },
  high: { mark: "!", word: "high, from 75 %" },
  critical: { mark: "!!", word: "critical, from 90 %" },
};

export function levelOf(percentage: number): Level {
  if (percentage >= 90) return "critical";
  if (percentage >= 75) return "high";
  if (percentage >= 50) return "busy";
  return "ok";
}
