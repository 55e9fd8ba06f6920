import "./style/tokens.css";
import "./style/base.css";
import "./style/form.css";
import "./style/table.css";

import { mount } from "svelte";

import App from "./view/App.svelte";

const target = document.getElementById("app");
if (target === null) {
    throw new Error("index.html has no #app");
}
mount(App, { target });
