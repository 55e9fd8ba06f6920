// A person's browser on the controller's page.
//
// page.mjs URL [USER PASSWORD_FILE]
//
// Signs in and waits for live data, or without a user only opens the page; prints `{"ready":true}`; then answers each line
// of standard input with one line of JSON. door.mjs, account.mjs, console.mjs and replay.mjs have more of what it answers.
//   read                          all rows: what each value's element carries
//   choose NODE                   presses a node's name
//   reload                        loads the page anew; the session must still be there
//   audit                         what axe finds wrong
//   screenshot FILE WIDTH HEIGHT light|dark

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

import { account } from "./account.mjs";
import { consoles } from "./console.mjs";
import { door } from "./door.mjs";
import { replays } from "./replay.mjs";

const [url, user, passwordFile] = process.argv.slice(2);
const PATIENCE = 30_000;

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
// The controller's certificate is of its own authority, which this browser doesn't know.
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(PATIENCE);

// What a developer's console would show: errors, refused loads, violations of the content security policy. Before the
// sign-in there is no session, which the page learns by an answer that the browser counts as an error.
const problems = [];
page.on("console", (message) => {
  if (message.type() === "error") problems.push(message.text());
});
page.on("pageerror", (error) => problems.push(String(error)));

const live = () => page.waitForSelector('[data-connection="live"]');

function rows() {
  return page.$$eval("tr[data-resource]", (found) =>
    found.map((row) => ({
      resource: row.dataset.resource,
      stale: row.dataset.stale !== undefined,
      state: row.dataset.state,
      text: row.textContent,
      course: row.querySelector(".sparkline .line")?.getAttribute("d") ?? "",
      values: Object.fromEntries(
        [...row.querySelectorAll("[data-metric]")].map(({ dataset }) => [
          dataset.metric,
          dataset.value === undefined ? null : Number(dataset.value),
        ]),
      ),
      absent: Object.fromEntries(
        [...row.querySelectorAll("[data-absent]")].map(({ dataset }) => [dataset.metric, dataset.absent]),
      ),
    })),
  );
}

const answers = {
  ...door(page, url),
  ...account(page),
  ...consoles(context, page, url, problems),
  ...replays(context, page, url, problems),
  async read() {
    const connection = await page.getAttribute("[data-connection]", "data-connection");
    const sources = await page.$$eval("tr[data-source]", (found) =>
      found.map((row) => [row.dataset.source, row.dataset.state]),
    );
    return { connection, problems, sources: Object.fromEntries(sources), rows: await rows() };
  },
  async choose(node) {
    await page.click(`tr[data-resource="nodes/${node}"] a`);
    return {};
  },
  async reload() {
    await page.reload();
    await live();
    return {};
  },
  async audit() {
    await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
    const found = await page.evaluate(() => globalThis.axe.run());
    return { violations: found.violations.map(({ id, nodes }) => ({ id, at: nodes.map((node) => node.html) })) };
  },
  async screenshot(file, width, height, scheme) {
    await page.setViewportSize({ width: Number(width), height: Number(height) });
    await page.emulateMedia({ colorScheme: scheme });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    // Tables of which some columns have to be scrolled to.
    const cut = await page.evaluate(() =>
      [...document.querySelectorAll(".scroller")]
        .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth)
        .map((scroller) => scroller.querySelector("table").id),
    );
    await page.screenshot({ path: file, fullPage: true });
    return { overflow, cut };
  },
};

function print(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

await page.goto(url);
await page.waitForSelector("#username");
if (user !== undefined) {
  await page.fill("#username", user);
  await page.fill("#password", readFileSync(passwordFile, "utf8").trim());
  problems.length = 0;
  await page.click('button[type="submit"]');
  await live();
}
print({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const [verb, ...rest] = line.split(" ");
  try {
    print(await answers[verb](...rest));
  } catch (error) {
    print({ failed: String(error) });
  }
}
await browser.close();
