// Asks again and again for what no stream carries.
const LONGEST_MS = 15_000;

export interface Asker<Answer> {
    ask(options: { signal: AbortSignal; timeoutMs: number }): Promise<Answer>;
    got(answer: Answer): void;
    failed(error: unknown): void;
}

/** At once, and then `everyMs` after each answer or failure, until stopped. */
export function poll<Answer>(everyMs: number, asker: Asker<Answer>): () => void {
    const stopped = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;

    const once = async (): Promise<void> => {
        const { signal } = stopped;
        try {
            const answer = await asker.ask({ signal, timeoutMs: LONGEST_MS });
            if (!signal.aborted) {
                asker.got(answer);
            }
        } catch (error) {
            if (!signal.aborted) {
                asker.failed(error);
            }
        }
        if (!signal.aborted) {
            timer = setTimeout(() => void once(), everyMs);
        }
    };
    void once();

    return () => {
        stopped.abort();
        clearTimeout(timer);
    };
}
