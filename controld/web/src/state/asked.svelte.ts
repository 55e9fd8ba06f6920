// A list that is asked for, and again after it was changed.
import { problem } from "../words/problem";

export class Asked<One> {
    /** Undefined: not answered yet, or never. What was answered before stays while it is asked again. */
    found: readonly One[] | undefined = $state.raw();
    trouble = $state("");

    readonly #ask: () => Promise<readonly One[]>;

    constructor(ask: () => Promise<readonly One[]>) {
        this.#ask = ask;
    }

    async ask(): Promise<void> {
        try {
            this.found = await this.#ask();
            this.trouble = "";
        } catch (error) {
            this.trouble = problem(error);
        }
    }
}
