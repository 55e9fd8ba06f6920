import "../style/tokens.css";
import "../style/base.css";
import "../style/form.css";
import "../style/console.css";

import { mount } from "svelte";

import Page from "./Page.svelte";

const target = document.getElementById("app");
if (target === null) {
    throw new Error("guest.html has no #app");
}
mount(Page, { target });
