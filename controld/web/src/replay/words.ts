// What is said of a recording. Pure.
import type { Recording, RecordingVerdict } from "../gen/horcrux/v1/recording_service_pb";
import { bytes } from "../words/quantity";
import { plain } from "../words/text";
import { length } from "./clock";
import type { Course } from "./load.svelte";

export interface Said {
    readonly state: "reading" | "intact" | "going" | "broken" | "unknown";
    readonly sign: string;
    readonly text: string;
}

/** Whether it is what was recorded, in a few words. */
export function said(course: Course, recording: Recording | undefined, verdict: RecordingVerdict | undefined, received: number): Said {
    if (verdict !== undefined) {
        if (!verdict.intact) {
            return { state: "broken", sign: "✕", text: "Not intact" };
        }
        return recording?.endedUnixMs === undefined
            ? { state: "going", sign: "●", text: "Being recorded: intact so far" }
            : { state: "intact", sign: "✓", text: "Intact" };
    }
    switch (course.at) {
        case "asking":
            return { state: "reading", sign: "○", text: "Asking the controller" };
        case "reading":
            return { state: "reading", sign: "◔", text: `Checked so far: ${bytes(received)} of ${bytes(Number(recording?.sizeBytes ?? 0))}` };
        case "cut":
        case "whole":
        case "refused":
            return { state: "unknown", sign: "?", text: "Not checked to its end" };
    }
}

/** What must not be missed of one that isn't intact. */
export function broken(verdict: RecordingVerdict, count: number, shown: number): string {
    const problem = plain(verdict.problem).trim();
    const from = `From byte ${verdict.brokenAt} on`;
    const rest =
        count === 0
            ? "Nothing of it can be relied on, and nothing is shown."
            : `It is shown up to ${length(shown)}, as far as it fits. ${from}, nothing vouches for it.`;
    return `${problem.charAt(0).toUpperCase()}${problem.slice(1)}. ${rest}`;
}

export type End = "going" | "ended" | "cut-short";

/** How it ended, as far as the list knows. */
export function end({ endedUnixMs, lastLink }: Recording): End {
    return endedUnixMs === undefined ? "going" : lastLink === "" ? "cut-short" : "ended";
}

/** How to have all of it. */
export function exporting(id: string): string {
    return `horcruxctl recording export ${id} FILE`;
}
