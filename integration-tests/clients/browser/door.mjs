// What a person does before they are signed in, and what they see then:
//
//   look                          what is shown, whatever it is
//   password REALM USER FILE      signs in with what FILE holds; REALM `-`: no realm is chosen
//   provider REALM USER [STATE]   signs in at the realm's provider, which takes any password; with STATE the browser comes
//                                 back with that in place of its own
//   code CODE                     gives the second factor
//   kept                          leaves the recovery codes
//   leave                         signs out

import { readFileSync } from "node:fs";

export function door(page, url) {
  /** The provider's own pages: its form, and its question whether to agree. */
  async function agree(user) {
    await page.fill('input[name="login"]', user);
    await page.fill('input[name="password"]', "any");
    await page.click('button[type="submit"]');
    await page.waitForSelector('input[name="prompt"][value="consent"]', { state: "attached" });
    await page.click('button[type="submit"]');
    await page.waitForURL(`${url}/**`, { waitUntil: "commit" });
  }

  return {
    async look() {
      return page.evaluate(() => {
        const text = (selector) =>
          [...document.querySelectorAll(selector)].map(({ textContent }) => textContent.trim()).join(" ").trim();
        return {
          path: window.location.pathname + window.location.search,
          heading: text("main h2"),
          trouble: text('[role="alert"]'),
          connection: document.querySelector("[data-connection]")?.dataset.connection ?? "",
          user: document.querySelector("#user")?.title ?? "",
          key: text("#totp-secret"),
          qr: document.querySelector("svg.qr .dark")?.getAttribute("d")?.length ?? 0,
          recovery: [...document.querySelectorAll("#recovery-codes code")].map(({ textContent }) => textContent),
        };
      });
    },
    async password(realm, user, file) {
      if (realm !== "-") {
        await page.selectOption("#realm", realm);
      }
      await page.fill("#username", user);
      await page.fill("#password", readFileSync(file, "utf8").trim());
      await page.click('form button[type="submit"]');
      return {};
    },
    async provider(realm, user, state) {
      // Without its script the page leaves alone what the provider sent the browser back with.
      const scripts = `${url}/assets/**`;
      await page.click(`button[data-realm="${realm}"]`);
      await page.waitForSelector('input[name="login"]');
      if (state === undefined) {
        await agree(user);
        return {};
      }
      await page.route(scripts, (route) => route.abort());
      await agree(user);
      const back = new URL(page.url());
      back.searchParams.set("state", state);
      await page.unroute(scripts);
      await page.goto(back.href);
      return {};
    },
    async code(code) {
      await page.fill("#code", code);
      await page.click('form button[type="submit"]');
      return {};
    },
    async kept() {
      await page.click("#kept");
      return {};
    },
    async leave() {
      await page.click("#sign-out");
      await page.waitForSelector("#username");
      return {};
    },
  };
}
