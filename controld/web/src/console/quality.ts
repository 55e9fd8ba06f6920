// How good a screen's picture is against what it costs. Pure.

export interface Quality {
    readonly id: string;
    readonly title: string;
    /** noVNC's: JPEG from 0 to 9. */
    readonly picture: number;
    /** noVNC's: effort of compression from 0 to 9. */
    readonly compression: number;
}

const BALANCED: Quality = { id: "balanced", title: "Balanced", picture: 6, compression: 2 };

export const QUALITIES: readonly Quality[] = [
    { id: "best", title: "Best picture", picture: 9, compression: 1 },
    BALANCED,
    { id: "slow", title: "For slow lines", picture: 3, compression: 6 },
    { id: "slowest", title: "For very slow lines", picture: 0, compression: 9 },
];

export function qualityOf(id: string | undefined): Quality {
    return QUALITIES.find((one) => one.id === id) ?? BALANCED;
}
