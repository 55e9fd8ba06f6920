// Whether there is room for tables with all their columns. style/table.css and style/tokens.css have the same width.
import { MediaQuery } from "svelte/reactivity";

export const narrow = new MediaQuery("max-width: 720px");
