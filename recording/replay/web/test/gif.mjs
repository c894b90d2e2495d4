// Makes GIFs in headless Chromium; gif_test.go looks at them. Standard input is JSON from there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const input = JSON.parse(readFileSync(0, "utf8"));
const PATIENCE = 90000;
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const complaints = [];
const failures = [];

async function tab(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("console", (m) => m.type() === "error" && !/status of (403|500)/.test(m.text()) && complaints.push(m.text()));
  page.on("pageerror", (e) => complaints.push(e.message));
  return page;
}

async function step(name, fn) {
  if (process.env.ONLY && !new RegExp(process.env.ONLY).test(name)) return;
  const began = Date.now();
  try {
    await fn();
    assert.deepEqual(complaints.splice(0), [], "the browser complained");
    console.log(`ok    ${name} (${Date.now() - began} ms)`);
  } catch (err) {
    failures.push(name);
    console.log(`FAIL  ${name}: ${err.stack ?? err}`);
  }
}

async function until(fn) {
  const give = Date.now() + PATIENCE;
  for (;;) {
    try {
      return await fn();
    } catch (err) {
      if (Date.now() > give) throw err;
    }
    await new Promise((r) => setTimeout(r, 50));
  }
}

const page = await tab();
await page.goto(`${input.url}/?token=${input.token}`);
await page.waitForSelector("table.list");
const root = page.url().replace(/\/$/, "");

// audits waits until the recorder can write down what it is asked for, or cannot.
const audits = (status) => until(async () => assert.equal(await page.evaluate((u) => fetch(u).then((r) => r.status), `${new URL(root).pathname}/api/recordings?q=${Math.random()}`), status));

async function dialog(p, o) {
  await p.locator(".gifbutton").click();
  await p.locator("dialog.gif").waitFor();
  if (o.from !== undefined) await p.getByLabel("from second").fill(String(o.from));
  if (o.to !== undefined) await p.getByLabel("to second").fill(String(o.to));
  if (o.speed) await p.getByLabel("speed of the GIF").selectOption(String(o.speed));
  if (o.idle) await p.getByLabel("longest pause").selectOption(String(o.idle));
  if (o.font) await p.getByLabel("size of the letters").selectOption(String(o.font));
}
const said = (p, re) => until(async () => assert.match(await p.locator(".gifsays").innerText(), re));
async function made(p, name, o) {
  await dialog(p, o);
  const [download] = await Promise.all([p.waitForEvent("download"), p.getByRole("button", { name: "Make it" }).click()]);
  await download.saveAs(`${input.shots}/${name}.gif`);
  console.log(`MADE ${name} ${await p.locator(".gifsays").innerText()}`);
}

await step("a GIF of a part", async () => {
  await page.goto(`${root}/r/${input.ids.shell}?t=46`);
  await page.waitForSelector(".xterm-rows");
  await made(page, "part", { from: 46, to: 53 });
  await page.screenshot({ path: `${input.shots}/gif-dialog.png` });
  await page.getByRole("button", { name: "Close" }).click();
});

await step("of all of it, faster and without pauses, with a resize in it", async () => {
  await made(page, "all", { from: 0, to: 1000, speed: 8, idle: 0.5, font: 10 });
  await page.getByRole("button", { name: "Close" }).click();
});

await step("colours, wide characters and styles", async () => {
  await page.goto(`${root}/r/${input.ids.colours}`);
  await page.waitForSelector(".xterm-rows");
  await made(page, "colours", { from: 0, to: 5, font: 20 });
  await page.getByRole("button", { name: "Close" }).click();
  await page.keyboard.press("End");
  await page.waitForFunction(() => document.querySelector(".frame .screen").getAttribute("aria-busy") === "false");
  await page.screenshot({ path: `${input.shots}/gif-colours-player.png` });
});

await step("a large one can be cancelled, and one that cannot be is said", async () => {
  await page.goto(`${root}/r/${input.ids.flood}`);
  await page.waitForSelector(".xterm-rows");
  await dialog(page, { from: 0, to: 300, idle: 0.5 });
  await page.getByRole("button", { name: "Make it" }).click();
  await said(page, /%/);
  await page.getByRole("button", { name: "Cancel" }).click();
  await said(page, /Cancelled/);
  await page.getByLabel("to second").fill("0");
  await page.getByRole("button", { name: "Make it" }).click();
  await said(page, /must come after/);
  await page.getByRole("button", { name: "Close" }).click();
});

await step("what has no terminal has no GIF", async () => {
  await page.goto(`${root}/r/${input.ids.exec}`);
  await page.waitForSelector(".output");
  assert.equal(await page.locator(".gifbutton").isVisible(), false);
});

await step("what cannot be written down is not made", async () => {
  await page.goto(`${root}/r/${input.ids.shell}?t=46`);
  await page.waitForSelector(".xterm-rows");
  console.log("FAILING");
  await audits(500);
  await dialog(page, { from: 46, to: 53 });
  await page.getByRole("button", { name: "Make it" }).click();
  await said(page, /trouble of its own/);
});

await step("the dialog fits a phone", async () => {
  console.log("WORKING");
  await audits(200);
  const phone = await tab({ viewport: { width: 390, height: 800 }, deviceScaleFactor: 2, hasTouch: true, colorScheme: "dark" });
  await phone.goto(`${input.url}/?token=${input.token}`);
  await phone.waitForSelector("table.list");
  await phone.goto(`${root}/r/${input.ids.shell}?t=46`);
  await phone.waitForSelector(".xterm-rows");
  await dialog(phone, {});
  await phone.screenshot({ path: `${input.shots}/phone-gif.png` });
  await until(async () => assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth)));
});

await browser.close();
if (failures.length > 0) {
  console.log(`${failures.length} failed: ${failures.join("; ")}`);
  process.exit(1);
}
