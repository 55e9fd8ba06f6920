// What the controller asks of a new password.
export const LEAST_CHARACTERS = 10;
const MOST_BYTES = 256;

/** What is wrong with it. Undefined: nothing. */
export function weakness(password: string, again: string): string | undefined {
    // Characters, not halves of them.
    if (Array.from(password).length < LEAST_CHARACTERS) {
        return `The password needs at least ${LEAST_CHARACTERS} characters.`;
    }
    if (new TextEncoder().encode(password).length > MOST_BYTES) {
        return `The password is longer than ${MOST_BYTES} bytes.`;
    }
    return password === again ? undefined : "The two passwords are not the same.";
}
