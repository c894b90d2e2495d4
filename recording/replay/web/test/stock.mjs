// Plays casts of ours with the stock web player of asciinema in headless Chromium. Standard input
// is JSON from stock_test.go: casts, and what their last screen shows.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const casts = JSON.parse(readFileSync(0, "utf8"));
const bundle = "node_modules/asciinema-player/dist/bundle/asciinema-player";
const page = `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/player.css"><script src="/player.js"></script><div id="at"></div>`;
const files = { "/": ["text/html", page], "/player.css": ["text/css", readFileSync(`${bundle}.css`)], "/player.js": ["text/javascript", readFileSync(`${bundle}.min.js`)] };
for (const [i, c] of casts.entries()) files[`/${i}.cast`] = ["application/x-asciicast", c.cast];

const server = createServer((req, res) => {
  const [type, body] = files[req.url] ?? [];
  if (!type) return void res.writeHead(404).end();
  res.writeHead(200, { "Content-Type": type }).end(body);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

let failed = false;
for (const [i, c] of casts.entries()) {
  const tab = await browser.newPage();
  const errors = [];
  tab.on("pageerror", (e) => errors.push(e.message));
  try {
    await tab.goto(`http://127.0.0.1:${server.address().port}/`);
    // To the end by playing, not by seeking: every event goes through the player.
    const got = await tab.evaluate(async (url) => {
      const errors = [];
      const log = () => {};
      const logger = { log, debug: log, info: log, warn: (...a) => errors.push(a.join(" ")), error: (...a) => errors.push(a.join(" ")) };
      const player = AsciinemaPlayer.create(url, document.getElementById("at"), { speed: 2000, logger });
      const marks = [];
      player.addEventListener("marker", (m) => marks.push(m.label));
      const ended = new Promise((done) => player.addEventListener("ended", done));
      await player.play();
      await ended;
      const seconds = player.getDuration();
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const screen = [...document.querySelectorAll(".ap-line")].map((l) => l.textContent.replace(/\s+$/, ""));
      return { marks, seconds, screen, errors };
    }, `/${i}.cast`);
    assert.deepEqual(got.errors, []);
    assert.deepEqual(got.screen, c.screen);
    assert.equal(got.screen.length, c.rows);
    assert.ok(Math.abs(got.seconds - c.seconds) < 0.01, `${got.seconds} s instead of ${c.seconds}`);
    for (const m of c.marks ?? []) assert.ok(got.marks.some((g) => g.includes(m)), `no marker ${m} in ${JSON.stringify(got.marks)}`);
    assert.deepEqual(errors, []);
    console.log(`ok ${c.name}: ${got.seconds.toFixed(1)} s, ${got.marks.length} markers`);
  } catch (err) {
    failed = true;
    console.log(`FAIL ${c.name}: ${err.stack ?? err}`);
  }
  await tab.close();
}
await browser.close();
server.close();
process.exitCode = failed ? 1 : 0;
