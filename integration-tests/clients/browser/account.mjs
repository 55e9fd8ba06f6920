// What a person does on the account page:
//
//   account         opens it
//   sessions        what it lists
//   end SESSION     ends one of them

export function account(page) {
  const listed = () =>
    page.$$eval("#sessions li[data-item]", (found) =>
      found.map((item) => ({
        id: item.dataset.item,
        text: item.textContent,
        current: item.querySelector("button") === null,
      })),
    );

  return {
    async account() {
      await page.click("#user");
      await page.waitForSelector("#sessions li");
      return {};
    },
    async sessions() {
      return { sessions: await listed() };
    },
    async end(session) {
      await page.click(`#sessions li[data-item="${session}"] button`);
      await page.click('dialog button[type="submit"]');
      await page.waitForSelector(`#sessions li[data-item="${session}"]`, { state: "detached" });
      return { sessions: await listed() };
    },
  };
}
