// What a person does with recordings of consoles, in a tab of its own:
//
//   recordings            opens their list by the link on the page
//   replay ID             opens one by its address
//   replay-cut ID BYTES   so that no more of what the controller says of it comes than so many bytes, once
//   replayed              what is said of it, and where it is
//   seek MS               goes there by the slider
//   tap KEY               presses a key: Space, ArrowLeft, Shift+ArrowRight, Home, <
//   colour X Y            of a pixel of the screen, as `r g b`; empty where there is no picture
//   drawing               the screen's size, how many of its pixels are lit, and a hash of it
//   lines                 the lines of the serial line that are in sight
//   press-on ID           presses a button above it: typed, fit, marks, get-more
//   flaws                 what axe finds wrong
//   picture-of FILE WIDTH HEIGHT light|dark
//   put-away              closes the tab

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { pictureOn } from "./console.mjs";

const CANVAS = "#screen .layer:not([data-told]) canvas";

export function replays(context, page, url, problems) {
  let tab;

  async function open(path, prepare = () => undefined) {
    tab = await context.newPage();
    await prepare();
    tab.setDefaultTimeout(30_000);
    tab.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    tab.on("pageerror", (error) => problems.push(String(error)));
    await tab.goto(`${url}${path}`);
    await tab.waitForSelector("#bar");
  }

  return {
    async recordings() {
      const link = await page.$("#to-recordings");
      const path = link === null ? "/recordings" : await link.getAttribute("href");
      await open(path);
      await tab.waitForSelector("#recordings, #none, .over");
      return tab.evaluate((linked) => ({
        linked,
        refusal: document.querySelector(".over")?.dataset.refusal ?? "",
        rows: [...document.querySelectorAll("tr[data-recording]")].map((row) => ({
          id: row.dataset.recording,
          end: row.dataset.end,
          cells: [...row.children].map(({ textContent }) => textContent.trim().replace(/\s+/gu, " ")),
        })),
      }), link !== null);
    },
    async replay(id) {
      await open(`/recordings/${id}`);
      return {};
    },
    async "replay-cut"(id, bytes) {
      const cut = async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: (await response.body()).subarray(0, Number(bytes)) });
      };
      await open(`/recordings/${id}`, () => tab.route("**/horcrux.v1.RecordingService/Read", cut, { times: 1 }));
      return {};
    },
    async replayed() {
      return tab.evaluate(() => {
        const text = (selector) => document.querySelector(selector)?.textContent.trim().replace(/\s+/gu, " ") ?? "";
        const controls = document.querySelector("#controls");
        return {
          title: document.title,
          heading: text("#bar h1"),
          verdict: document.querySelector("#verdict")?.dataset.state ?? "",
          course: document.querySelector("#verdict")?.dataset.course ?? "",
          refusal: document.querySelector(".over")?.dataset.refusal ?? "",
          over: text(".over"),
          warnings: Object.fromEntries([...document.querySelectorAll(".warning")].map(({ id, textContent }) => [id, textContent.trim()])),
          marks: [...document.querySelectorAll(".mark")].map(({ dataset, title }) => ({ kind: dataset.mark, title })),
          playing: controls?.dataset.playing === "true",
          seeking: controls?.dataset.seeking === "true",
          at: document.querySelector("#position")?.valueAsNumber ?? null,
          time: text("#time"),
          wall: text("#wall"),
          speed: document.querySelector("#speed")?.value ?? "",
          typed: text("#typed-track"),
          events: Number(controls?.dataset.events ?? 0),
        };
      });
    },
    async seek(ms) {
      await tab.$eval("#position", (slider, at) => {
        slider.value = at;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
      }, ms);
      return {};
    },
    async tap(key) {
      await tab.keyboard.press(key);
      return {};
    },
    async colour(x, y) {
      return tab.evaluate(([selector, x, y]) => {
        const canvas = document.querySelector(selector);
        if (canvas === null || canvas.width === 0) return { colour: "", width: 0, height: 0 };
        const [red, green, blue, alpha] = canvas.getContext("2d").getImageData(x, y, 1, 1).data;
        return { colour: alpha === 0 ? "" : `${red} ${green} ${blue}`, width: canvas.width, height: canvas.height };
      }, [CANVAS, Number(x), Number(y)]);
    },
    async drawing() {
      return pictureOn(tab, CANVAS);
    },
    async lines() {
      const lines = await tab.$$eval("#serial .xterm-rows > div", (rows) => rows.map(({ textContent }) => textContent.trimEnd()));
      return { lines: lines.filter((line) => line !== "") };
    },
    async "press-on"(id) {
      await tab.click(`#${id}`);
      return {};
    },
    async flaws() {
      await tab.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
      const found = await tab.evaluate(() => globalThis.axe.run());
      return { violations: found.violations.map(({ id, nodes }) => ({ id, at: nodes.map((node) => node.html) })) };
    },
    async "picture-of"(file, width, height, scheme) {
      await tab.setViewportSize({ width: Number(width), height: Number(height) });
      await tab.emulateMedia({ colorScheme: scheme });
      const overflow = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      await tab.screenshot({ path: file });
      return { overflow };
    },
    async "put-away"() {
      await tab.close();
      return {};
    },
  };
}
