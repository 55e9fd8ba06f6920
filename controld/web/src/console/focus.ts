// Who writes in a field must not find their words in the VM because it has just come back.

export function isNobodyElsewhere(): boolean {
    return document.activeElement === null || document.activeElement === document.body;
}
