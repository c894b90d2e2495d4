// Opens sealed recordings in headless Chromium, with keys that are only here. Standard input is JSON from
// sealed_browser_test.go.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const input = JSON.parse(readFileSync(0, "utf8"));
const { ids, keys, token } = input;
const PATIENCE = 60000;

// Over the mesh the page is plain http under a name: not what browsers call a secure context, and without WebCrypto.
const mesh = new URL(input.url);
mesh.hostname = "hub.demo.internal";
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP hub.demo.internal 127.0.0.1"],
});
const failures = [];
const complaints = [];

async function tab(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("console", (m) => {
    // That a page over plain http is not trusted with some headers is said in the console, and is so.
    if (m.type() === "error" && !/status of 40[0134]|Cross-Origin-Opener-Policy header has been ignored/.test(m.text())) complaints.push(`${page.url()}: ${m.text()}`);
  });
  page.on("pageerror", (e) => complaints.push(`${page.url()}: ${e.message}`));
  page.on("request", (r) => {
    const u = new URL(r.url());
    if (u.hostname !== "127.0.0.1" && u.hostname !== mesh.hostname && !["data:", "file:", "blob:"].includes(u.protocol)) complaints.push(`asks for ${r.url()}`);
  });
  return page;
}

async function step(name, fn) {
  if (process.env.ONLY && !new RegExp(process.env.ONLY).test(name)) return;
  const before = complaints.length;
  const began = Date.now();
  try {
    await fn();
    assert.deepEqual([...new Set(complaints.slice(before))], [], "the browser complained");
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
const shot = (page, name) => page.screenshot({ path: `${input.shots}/${name}.png`, fullPage: true });
const has = (page, text) =>
  page.waitForFunction(
    (t) => document.querySelector(".frame .screen")?.getAttribute("aria-busy") === "false" && document.querySelector(".xterm-rows, .output, .files")?.innerText.replaceAll("\u00a0", " ").includes(t),
    text, { timeout: PATIENCE });

// enter gives the page of a recording, before it is opened.
async function enter(page, base, name, query = "") {
  await page.goto(`${base}/?token=${token}`);
  await page.waitForSelector("table.list");
  const root = page.url().replace(/\/$/, "");
  await page.goto(`${root}/r/${ids[name]}${query}`);
  await page.locator(".unlock").waitFor();
  return root;
}
const unlock = async (page, key) => {
  await page.locator(".key").fill(key);
  await page.getByRole("button", { name: "Open", exact: true }).click();
};
const says = (page, re) => until(async () => assert.match(await page.locator(".keysays").innerText(), re));

const here = mesh.toString().replace(/\/$/, "");
const page = await tab();

await step("a page over plain http asks for the key, and says which key is wrong and why", async () => {
  await enter(page, here, "shell", "?t=52");
  assert.equal(await page.evaluate(() => isSecureContext || Boolean(crypto.subtle)), false, "this is to be without WebCrypto");
  assert.match(await page.locator(".locked").innerText(), /not sent, not stored/);
  await shot(page, "locked");
  await unlock(page, keys.wrong);
  await says(page, /opens nothing here/);
  assert.ok((await page.locator(".keysays").innerText()).includes(input.recipient), "to whom it is sealed");
  await unlock(page, "");
  await says(page, /Paste an identity/);
  await unlock(page, keys.age.slice(0, -3));
  await says(page, /whether all of it is there/);
  await unlock(page, input.recipient);
  await says(page, /is a recipient/);
  await unlock(page, keys.sshLocked);
  await says(page, /has a passphrase/);
  await shot(page, "wrong-key");
  assert.equal(await page.locator(".xterm-rows").count(), 0);
});

await step("it opens with the key, and plays, seeks, searches and verifies", async () => {
  await unlock(page, keys.age);
  await has(page, "[emerg]");
  assert.equal(await page.locator(".key").count(), 0, "the place for the key is gone");
  await page.locator(".proof.ok").waitFor();
  assert.match(await page.locator(".proof summary").innerText(), /Verified in this browser: whole, in order and signed to its end/);
  await page.keyboard.press("End");
  await has(page, "$ exit");
  const bar = await page.locator(".timeline").boundingBox();
  await page.mouse.click(bar.x + bar.width * 0.02, bar.y + 20);
  await has(page, "systemctl");
  await until(async () => assert.equal(await page.locator('.lane[data-lane="command"]').getAttribute("data-count"), "5"));
  await page.keyboard.press("t");
  await until(async () => assert.equal(await page.locator(".transcript details.cmd").count(), 5));
  await page.locator(".transcript .more").click();
  await until(async () => assert.match(await page.locator(".transcript").textContent(), /example-20993.conf/));
  await page.keyboard.press("t");
  await page.keyboard.press("/");
  await page.locator(".findbar input").fill("package-2500");
  await until(async () => assert.equal(await page.locator(".hits li").count(), 1));
  await page.evaluate(() => dispatchEvent(new Event("pagehide"))); // the address is as it would be at a reload
  assert.ok(!page.url().includes("package"), "what was looked for is in the address, which the recorder gets at a reload");
  await page.locator(".findbar .toggle").click();
  await page.locator(".findbar input").fill("package-00[0-2]\\d");
  await until(async () => assert.equal(await page.locator(".hits li").count(), 30));
  await page.locator(".findbar input").fill("package-(");
  await until(async () => assert.match(await page.locator(".findbar .count").innerText(), /not a regular expression/));
  await page.locator(".findbar input").fill("^(([^x])+)+x$");
  await until(async () => assert.match(await page.locator(".findbar .count").innerText(), /^(nothing|\d+) found$/, "an expression that would keep the browser's own busy for ever"));
  await shot(page, "unlocked");
  for (const kept of ["localStorage", "sessionStorage"]) assert.equal(await page.evaluate((k) => window[k].length, kept), 0, kept);
  assert.ok(!page.url().includes("SECRET"));
  assert.equal(await page.locator('.files-out a[href*="/cast"], .files-out a[href$="/text"]').count(), 0, "what the recorder cannot make");
});

await step("after a reload it asks again", async () => {
  await page.reload();
  await page.locator(".unlock").waitFor();
  assert.equal(await page.locator(".key").inputValue(), "");
});

await step("a key file, an ssh key, and a browser's own cryptography do too", async () => {
  const own = await tab();
  await enter(own, input.url, "marked");
  assert.equal(await own.evaluate(() => isSecureContext && Boolean(crypto.subtle)), true);
  await own.locator('.unlock input[type="file"]').setInputFiles({ name: "auditor.key", mimeType: "text/plain", buffer: Buffer.from(keys.file) });
  await own.locator(".proof.ok").waitFor();
  await own.keyboard.press("End");
  const counts = await until(async () => {
    const c = await own.locator(".lane").evaluateAll((all) => Object.fromEntries(all.map((x) => [x.dataset.lane, x.dataset.count])));
    assert.equal(c.command, "6");
    return c;
  });
  assert.equal(counts.file, "2");
  assert.equal(counts.forward, "2");
  await own.selectOption(".channel", "4");
  await has(own, "CREATE TABLE");
  await until(async () => assert.equal(await own.locator("p.command").innerText(), "pg_dump --schema-only app", "which was sealed"));
  await own.reload();
  await own.locator(".unlock").waitFor();
  await unlock(own, keys.ssh);
  await own.locator(".proof.ok").waitFor();
  await shot(own, "unlocked-marked");
});

await step("what is sealed to others in the middle is said, and the rest plays", async () => {
  const some = await tab();
  await enter(some, here, "partly");
  await unlock(some, keys.age);
  await some.locator(".proof.ok").waitFor();
  await some.locator(".proof summary").click();
  assert.match(await some.locator(".proof").innerText(), /Parts of it are sealed to others/);
  await some.keyboard.press("t");
  await until(async () => assert.match(await some.locator(".transcript").textContent(), /sealed, and opens with an identity of age1/));
  await shot(some, "partly");
});

await step("a running one is followed", async () => {
  const live = await tab();
  await enter(live, here, "live");
  await unlock(live, keys.age);
  await live.waitForSelector(".xterm-rows");
  await live.getByRole("button", { name: "Go live" }).click();
  await has(live, "package-");
  await until(async () => assert.match(await live.locator(".proof summary").innerText(), /it has no end/));
  console.log("GROW");
  await has(live, "all-good-again");
  await until(async () => assert.match(await live.locator(".endmark").innerText(), /exit 0/));
  await until(async () => assert.match(await live.locator(".proof summary").innerText(), /signed to its end/));
});

await step("exported it stays sealed, and opens offline", async () => {
  await enter(page, here, "shell");
  await shot(page, "locked-again");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator('.locked a[href$="/html"]').click()]);
  const file = `${input.shots}/given.html`;
  await download.saveAs(file);
  const html = readFileSync(file, "utf8");
  assert.ok(!/(src|href)="http/.test(html), "it refers to nothing elsewhere");
  for (const word of ["systemctl", "nginx", "all-good"]) assert.ok(!html.includes(word), word);
  const away = await tab({ offline: true });
  await away.goto(`file://${file}#t=52&q=emerg`);
  await away.locator(".unlock").waitFor();
  await away.locator(".proof.ok").waitFor();
  await shot(away, "given-locked");
  await unlock(away, keys.wrong);
  await says(away, /opens nothing here/);
  await unlock(away, keys.age);
  await has(away, "[emerg]");
  await until(async () => assert.match(await away.locator(".findbar .count").innerText(), /1 found/));
  await away.keyboard.press("t");
  await until(async () => assert.equal(await away.locator(".transcript details.cmd").count(), 5));
  await shot(away, "given");
});

await step("it fits a phone", async () => {
  const phone = await tab({ viewport: { width: 390, height: 800 }, deviceScaleFactor: 2, colorScheme: "dark", hasTouch: true });
  await enter(phone, here, "shell", "?t=52");
  await until(async () => assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth)));
  await shot(phone, "phone-locked");
  await unlock(phone, keys.age);
  await has(phone, "[emerg]");
  await phone.locator(".proof.ok").waitFor();
  await until(async () => assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth)));
  await shot(phone, "phone-unlocked");
});

await step("the page reads in them what the recorder would", async () => {
  const bundle = await build({ entryPoints: ["test/reading.ts"], bundle: true, write: false, format: "iife", target: ["es2022"], loader: { ".css": "empty" } });
  const bare = await tab();
  await bare.goto("about:blank");
  await bare.addScriptTag({ content: bundle.outputFiles[0].text });
  for (const [name, file] of Object.entries(input.files)) {
    const r = await bare.evaluate(([f, k, id]) => globalThis.reading(f, k, id), [file, keys.age, ids[name]]);
    writeFileSync(`${input.shots}/read-${name}.json`, JSON.stringify(r));
  }
});

await browser.close();
if (failures.length > 0) {
  console.log(`${failures.length} failed: ${failures.join("; ")}`);
  process.exit(1);
}
