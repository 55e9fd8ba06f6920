// What a person does at a VM's console, in a tab of its own:
//
//   sit UUID                   presses the link to the console in the VM's row
//   console UUID KIND [MODE]   opens it by its address: KIND vnc or serial, MODE view
//   guest LINK                   opens a link in a browser with nothing in it
//   address                      what the tab's address holds
//   renew                        loads the tab anew
//   share KIND MODE COMMENT      makes a link for a guest with the keyboard alone, and says what is shown
//   revoke ID                    presses the button that revokes a link
//   size WIDTH HEIGHT            of the tab
//   problems                     what a developer's console shows
//   shown                      what the bar and the card over the console say
//   picture                    the screen's size, how many colours it has, how many of its pixels are lit, and a hash of it
//   terminal                   the lines of the serial line that are in sight
//   keys TEXT                  types on a US keyboard; \n is Enter
//   press KEY                  presses one key or several together: Control+Alt+Home
//   paste KEYBOARD TEXT        has a text typed key by key
//   button ID                  presses a button of the bar
//   again                      presses what the card over the console offers first
//   violations                 what axe finds wrong
//   photo FILE                 takes a picture of the tab
//   back USER PASSWORD_FILE    goes to sign in from a console whose session is over, and does so
//   rise                       closes the tab

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/** What is on a canvas. */
export function pictureOn(tab, selector) {
  return tab.evaluate(async (selector) => {
    const canvas = document.querySelector(selector);
    if (canvas === null || canvas.width === 0 || canvas.height === 0) return { width: 0, height: 0, colours: 0, lit: 0, hash: "" };
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    const pixels = new Uint32Array(data.buffer);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
    return {
      width,
      height,
      colours: new Set(pixels).size,
      lit: pixels.reduce((lit, pixel) => lit + Number((pixel & 0xffffff) !== 0), 0),
      hash: [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join(""),
    };
  }, selector);
}

export function consoles(context, page, url, problems) {
  let tab;

  function watch(opened) {
    tab = opened;
    tab.setDefaultTimeout(30_000);
    tab.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    tab.on("pageerror", (error) => problems.push(String(error)));
    return tab.waitForSelector("#bar");
  }

  const written = (words) => words.join(" ").replaceAll("\\n", "\n");

  return {
    async sit(uuid) {
      const [opened] = await Promise.all([
        context.waitForEvent("page"),
        page.click(`tr[data-resource="vms/${uuid}"] a.console`),
      ]);
      await watch(opened);
      return { path: new URL(tab.url()).pathname };
    },
    async console(uuid, kind, mode) {
      const opened = await context.newPage();
      const asked = new URLSearchParams({ ...(kind === "serial" && { kind }), ...(mode !== undefined && { mode }) });
      await opened.goto(`${url}/vms/${uuid}/console?${asked}`);
      await watch(opened);
      return {};
    },
    async guest(link) {
      // Whoever has no account has no session of anybody's either.
      const apart = await context.browser().newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
      const opened = await apart.newPage();
      problems.length = 0;
      await opened.goto(link);
      await watch(opened);
      return {};
    },
    async address() {
      return { address: tab.url().slice(url.length) };
    },
    async renew() {
      await tab.reload();
      await tab.waitForSelector("#bar");
      return {};
    },
    async share(kind, mode, ...comment) {
      await tab.locator("#share").focus();
      await tab.keyboard.press("Enter");
      await tab.locator("#share-kind:focus").waitFor();
      await tab.keyboard.press(kind[0]);
      await tab.keyboard.press("Tab");
      await tab.keyboard.press(mode === "view" ? "O" : "L");
      await tab.keyboard.press("Tab");
      await tab.keyboard.press("Tab");
      await tab.keyboard.type(comment.join(" "));
      await tab.keyboard.press("Enter");
      await tab.locator("#share-link:focus").waitFor();
      const said = await tab.locator("#share-links li").allInnerTexts();
      return { link: await tab.inputValue("#share-link"), kind: await tab.inputValue("#share-kind"), said };
    },
    async revoke(id) {
      await tab.click(`[data-link="${id}"] button`);
      await tab.locator(`[data-link="${id}"]`).waitFor({ state: "detached" });
      return {};
    },
    async problems() {
      return { problems };
    },
    async size(width, height) {
      await tab.setViewportSize({ width: Number(width), height: Number(height) });
      const overflow = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      return { overflow };
    },
    async shown() {
      return tab.evaluate(() => {
        const text = (selector) => document.querySelector(selector)?.textContent.trim().replace(/\s+/gu, " ") ?? "";
        const state = document.querySelector("#console-state");
        const over = document.querySelector(".over");
        const { activeElement } = document;
        return {
          title: document.title,
          vm: text("#bar h1"),
          node: text("#bar .node"),
          state: text("#console-state"),
          stage: state.dataset.stage,
          drawn: state.dataset.drawn === "true",
          guest: text("#guest"),
          badges: [...document.querySelectorAll(".badge")].map(({ id }) => id),
          viewers: text("#viewers"),
          canType: document.querySelector("#paste")?.disabled === false,
          ending: over?.dataset.ending ?? "",
          over: text(".over"),
          focus: activeElement === document.body ? "" : activeElement.id || activeElement.textContent.trim(),
        };
      });
    },
    async picture() {
      return pictureOn(tab, "#screen canvas");
    },
    async terminal() {
      const lines = await tab.$$eval("#serial .xterm-rows > div", (rows) => rows.map(({ textContent }) => textContent.trimEnd()));
      return { lines: lines.filter((line) => line !== "") };
    },
    async keys(...words) {
      // A guest hears of keys by their place: of Shift only where it is pressed.
      for (const character of written(words)) {
        const shifted = /[A-Z~!@#$%^&*()_+{}|:"<>?]/u.test(character);
        if (shifted) await tab.keyboard.down("Shift");
        await tab.keyboard.press(character === "\n" ? "Enter" : character, { delay: 20 });
        if (shifted) await tab.keyboard.up("Shift");
      }
      return {};
    },
    async press(key) {
      await tab.keyboard.press(key);
      return {};
    },
    async paste(keyboard, ...words) {
      await tab.click("#paste");
      await tab.fill("#paste-text", written(words));
      await tab.selectOption("#paste-keyboard", keyboard);
      await tab.click("#paste-start");
      await tab.waitForSelector("#paste-start:enabled");
      const said = await tab.textContent("#paste-said");
      await tab.click("#paste");
      return { said: said.trim() };
    },
    async button(id) {
      await tab.click(`#${id}`);
      return {};
    },
    async again() {
      await tab.click(".over .do :is(button, a)");
      return {};
    },
    async violations() {
      await tab.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
      const found = await tab.evaluate(() => globalThis.axe.run());
      return { violations: found.violations.map(({ id, nodes }) => ({ id, at: nodes.map((node) => node.html) })) };
    },
    async photo(file) {
      await tab.screenshot({ path: file });
      return {};
    },
    async back(user, file) {
      await tab.click(".over a");
      await tab.fill("#username", user);
      await tab.fill("#password", readFileSync(file, "utf8").trim());
      await tab.click('form button[type="submit"]');
      await tab.waitForSelector("#bar");
      return {};
    },
    async rise() {
      await tab.close();
      return {};
    },
  };
}
