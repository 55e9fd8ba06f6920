// Text for people. What nodes, guests and runtimes call themselves is shown, and can't pose as anything else.
import type { DescEnum } from "@bufbuild/protobuf";

/** Without characters that are not seen or that reorder others. */
export function plain(text: string): string {
    return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, "\uFFFD");
}

/** A resource's name without its collection. */
export function bare(name: string): string {
    return plain(name.slice(name.indexOf("/") + 1));
}

/** An enum's value in words: `NODE_STATE_NEVER_SEEN` is "never seen". */
export function word(schema: DescEnum, number: number): string {
    const found = schema.value[number];
    if (found === undefined || number === 0) {
        return "unknown";
    }
    const prefix = schema.sharedPrefix?.length ?? 0;
    return found.name.slice(prefix).toLowerCase().replaceAll("_", " ");
}

export function sentence(text: string): string {
    // A name is as it is: alice@local, vms/web1.
    return /^[^\s]*[@/]/u.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
}
