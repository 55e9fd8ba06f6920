// Reads a recording into a tape, and says how that goes.
import { Code, ConnectError } from "@connectrpc/connect";

import { ConsoleKind } from "../gen/horcrux/v1/console_service_pb";
import type { Recording, RecordingVerdict } from "../gen/horcrux/v1/recording_service_pb";
import { recordings } from "../rpc/clients";
import { whoAmI } from "../rpc/session";
import { problem } from "../words/problem";
import { CastReader, type Size } from "./cast";
import { FrameReader } from "./frames";
import { type Reader, Unreadable } from "./reader";
import { type Mark, Tape } from "./tape";

export type Refusal = "session" | "right" | "absent" | "failed";

export type Course =
    | { readonly at: "asking" | "reading" | "whole" }
    /** It broke off; what was read before is there. */
    | { readonly at: "cut"; readonly why: string }
    /** Nothing was read. */
    | { readonly at: "refused"; readonly why: string; readonly refusal: Refusal };

const REFUSALS: ReadonlyMap<Code, Refusal> = new Map([
    [Code.Unauthenticated, "session"],
    [Code.PermissionDenied, "right"],
    [Code.NotFound, "absent"],
]);

/** Of an error for which nothing is shown. */
export function refused(error: unknown): Course {
    return { at: "refused", why: problem(error), refusal: REFUSALS.get(ConnectError.from(error).code) ?? "failed" };
}

export class Load {
    course = $state.raw<Course>({ at: "asking" });
    recording = $state.raw<Recording>();
    verdict = $state.raw<RecordingVerdict>();
    /** Why what follows in it isn't shown. */
    unreadable = $state("");
    received = $state(0);
    tape = $state.raw(new Tape());
    size = $state.raw<Size>();
    marks = $state.raw<readonly Mark[]>([]);
    /** How many events there are so far. */
    count = $state(0);
    #attempt = new AbortController();
    readonly #grown: () => void;

    constructor(grown: () => void) {
        this.#grown = grown;
    }

    get isReading(): boolean {
        return this.course.at === "asking" || this.course.at === "reading";
    }

    /** From its beginning; what was read before is let go of. */
    async start(id: string): Promise<void> {
        this.stop();
        const attempt = new AbortController();
        this.#attempt = attempt;
        [this.course, this.received, this.verdict, this.unreadable] = [{ at: "asking" }, 0, undefined, ""];
        this.tape = new Tape();
        this.#tell();
        try {
            // The proof that this page asks is of the session, which may be another than before.
            await whoAmI();
            await this.#read(id, attempt.signal);
        } catch (error) {
            if (!attempt.signal.aborted) {
                this.course = this.course.at === "reading" ? { at: "cut", why: problem(error) } : refused(error);
            }
        }
        if (!attempt.signal.aborted) {
            this.#tell();
        }
    }

    stop(): void {
        this.#attempt.abort();
    }

    async #read(id: string, signal: AbortSignal): Promise<void> {
        let reader: Reader | undefined;
        const { tape } = this;
        for await (const { part } of recordings.read({ name: `recordings/${id}` }, { signal })) {
            if (signal.aborted) {
                return;
            }
            switch (part.case) {
                case "recording":
                    this.recording = part.value;
                    reader = readerOf(part.value.kind, tape);
                    this.course = { at: "reading" };
                    break;
                case "data":
                    this.received += part.value.length;
                    reader = this.#take(reader, part.value);
                    this.#tell();
                    break;
                case "verdict":
                    if (!part.value.intact) {
                        tape.cut(Number(part.value.brokenAt));
                    }
                    this.verdict = part.value;
                    this.course = { at: "whole" };
                    break;
                case undefined:
                    break;
            }
        }
        if (this.verdict === undefined) {
            this.course = { at: "cut", why: "The controller ended it before its end." };
        }
    }

    #tell(): void {
        [this.marks, this.count] = [this.tape.marks, this.tape.count];
        this.#grown();
    }

    /** What reads on: nothing, once there is what can't be read, or more than is kept. The verdict is still waited for. */
    #take(reader: Reader | undefined, bytes: Uint8Array): Reader | undefined {
        if (reader === undefined || this.tape.isFull) {
            return undefined;
        }
        try {
            reader.take(bytes);
            this.size = reader instanceof CastReader ? reader.size : undefined;
            return reader;
        } catch (error) {
            if (!(error instanceof Unreadable)) {
                throw error;
            }
            this.unreadable = error.message;
            return undefined;
        }
    }
}

function readerOf(kind: ConsoleKind, tape: Tape): Reader | undefined {
    switch (kind) {
        case ConsoleKind.SERIAL:
            return new CastReader(tape);
        case ConsoleKind.VNC:
            return new FrameReader(tape);
        default:
            return undefined;
    }
}
