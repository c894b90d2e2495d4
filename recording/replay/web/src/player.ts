// The player: the page around a recording, its keys, and what its address says.

import * as api from "./api";
import { askToWatch } from "./ask";
import { h, replace } from "./dom";
import { deleteButton, endButton } from "./end";
import { follow } from "./follow";
import { gifMaker } from "./gifmaker";
import { clock, length, size, wall, when } from "./format";
import { ending } from "./list";
import { showLocked } from "./locked";
import { Notes } from "./notes";
import { Playback, SPEEDS } from "./playback";
import { Recording } from "./recording";
import { Remote } from "./remote";
import type { Opened, Source } from "./opened";
import { Timeline } from "./timeline";

const KEYS: [string, string][] = [
  ["Space or K", "play, pause"],
  ["\u2190 \u2192", "5 seconds back, forward"],
  ["Shift + \u2190 \u2192", "a tenth of the recording"],
  [", .", "previous, next event"],
  ["0 \u2026 9", "to that tenth of the recording"],
  ["Home, End", "to the beginning, to the end"],
  ["- +", "slower, faster"],
  ["I", "skip idle time or not"],
  ["W", "time of day or time since the start"],
  ["C", "next channel"],
  ["F", "whole screen"],
  ["/", "find on the screen"],
  ["N, Shift N", "next, previous hit"],
  ["[ ]", "previous, next command"],
  ["Tab, \u2190 \u2192", "from one to the next in a lane"],
  ["T", "transcript"],
  ["Y", "copy the text in view"],
  ["?", "these keys"],
];

export interface Where {
  source?: () => Source; // of sealed bytes; otherwise the recorder
  opened?: Opened; // and what a key opened of them
  remote?: Remote;
  asked?: boolean; // and said that they want to watch
}

export async function showPlayer(main: HTMLElement, id: string, where: Where = {}): Promise<void> {
  // A page that was opened from a file keeps its place behind the #.
  const params = new URLSearchParams(api.isOffline() ? location.hash.slice(1) : location.search);
  const detail = await api.detail(id);
  const { opened } = where;
  if (detail.watch_shown && !where.asked) return askToWatch(main, detail, () => showPlayer(main, id, { ...where, asked: true }));
  if (detail.locked && !opened) {
    const remote = new Remote(() => detail);
    return showLocked(main, detail, where.source?.() ?? remote, (o) => showPlayer(main, id, { ...where, remote, opened: o }));
  }
  const own = opened && (await import("./unlocked")).beside(id, opened, !api.isOffline(), (reload) => {
    rec.became(rec.d);
    describe();
    player.hooks.changed();
    if (reload) run(notes.reload());
  });
  const rec = new Recording(detail, own?.amend);
  if (where.remote) where.remote.d = () => rec.d;
  const d = () => rec.d;
  const viewer = document.getElementById("viewer"); // not in a page that was shared
  if (viewer) viewer.textContent = d().viewer.who;
  document.title = `${d().who || d().src} as ${d().local_user} on ${d().host}`;

  let wallClock = false;
  const stage = h("div", { class: "screen" });
  const playButton = h("button", { type: "button", class: "play", "aria-label": "play" });
  const back = h("button", { type: "button", class: "step", title: "one event back (,)", "aria-label": "one event back" }, "\u2039");
  const forth = h("button", { type: "button", class: "step", title: "one event on (.)", "aria-label": "one event on" }, "\u203a");
  const time = h("button", { type: "button", class: "time", title: "time of day or time since the start (W)" });
  const speed = h("select", { class: "speed", "aria-label": "speed", title: "speed (- +)" }, ...SPEEDS.map((s) => h("option", { value: s }, `${s}\u00d7`)));
  const idle = h("button", { type: "button", class: "toggle idle", title: "skip idle time (I)" }, "Skip idle");
  const skipped = h("div", { class: "skipped", role: "status", hidden: true });
  const channel = h("select", { class: "channel", "aria-label": "channel", title: "channel (C)" });
  const goLive = h("button", { type: "button", class: "toggle golive", hidden: true }, "Go live");
  const big = h("button", { type: "button", class: "bigplay", tabindex: "-1", "aria-label": "play from here", hidden: true });
  const stop = endButton(d);
  const drop = deleteButton(d);
  const full = h("button", { type: "button", class: "toggle full", title: "whole screen (F)" }, "Full screen");
  const textButton = h("button", { type: "button", class: "toggle text", title: "transcript (T)", "aria-pressed": "false" }, "Transcript");
  const copyButton = h("button", { type: "button", class: "toggle copy", title: "copy the text in view (Y)" }, "Copy");
  const helpButton = h("button", { type: "button", class: "toggle keys", title: "keys (?)", "aria-label": "keys" }, "?");
  const watchers = h("p", { class: "watchers", role: "status", hidden: true });
  const state = h("p", { class: "banner", role: "status", hidden: true });
  const problem = h("p", { class: "banner bad", role: "alert", hidden: true });
  const end = h("span", { class: "endmark" });
  const command = h("p", { class: "command", hidden: true });
  const help = h("dialog", { class: "help" }, h("h2", null, "Keys"), h("dl", null, ...KEYS.flatMap(([k, w]) => [h("dt", null, k), h("dd", null, w)])),
    h("form", { method: "dialog" }, h("button", null, "Close")));

  const player = new Playback(rec, stage, {
    moved: (t) => {
      line.at(t, player.skipIdle);
      time.textContent = wallClock ? wall(d().start, t) : `${clock(t, true)} / ${clock(rec.end, true)}`;
    },
    changed: () => {
      playButton.classList.toggle("on", player.playing);
      playButton.setAttribute("aria-label", player.playing ? "pause" : "play");
      speed.value = String(player.speed);
      idle.setAttribute("aria-pressed", String(player.skipIdle));
      channel.value = String(player.channel);
      goLive.setAttribute("aria-pressed", String(player.following));
      if (player.playing || player.t > 0) big.hidden = true;
      gif.button.hidden = !d().channel_list.find((c) => c.n === player.channel)?.pty;
      const what = d().channel_list.find((c) => c.n === player.channel)?.command ?? "";
      command.textContent = what;
      command.hidden = what === "";
      line.at(player.t, player.skipIdle);
      remember();
    },
    skipped: (seconds) => {
      skipped.textContent = `${length(seconds)} without a sign of life skipped`;
      skipped.hidden = false;
      clearTimeout(skippedTimer);
      skippedTimer = window.setTimeout(() => (skipped.hidden = true), 1800);
    },
    failed: (err) => {
      problem.textContent = err instanceof Error ? err.message : String(err);
      problem.hidden = false;
    },
    recovered: () => (problem.hidden = true),
    atEnd: () => (end.hidden = false),
  });
  let skippedTimer = 0;
  rec.trouble = (err) => player.hooks.failed(err);
  rec.recovered = () => {
    player.hooks.recovered();
    run(notes.load()); // it may have failed meanwhile
  };
  const goTo = (t: number, ch?: number) => {
    if (ch !== undefined && ch !== player.channel && d().channel_list.some((c) => c.n === ch)) player.setChannel(ch);
    void player.seek(t);
  };
  const line = new Timeline(d().start, goTo);

  const gif = gifMaker(player);
  const notes = new Notes(id, {
    seek: goTo,
    ticks: (marks, hits) => line.ticks(marks, hits),
    changed: () => {
      textButton.setAttribute("aria-pressed", String(notes.open));
      remember();
    },
    now: () => player.t,
  });

  async function copyText() {
    const text = player.text();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Over plain http there is no clipboard object, but there is this.
      const area = h("textarea", { class: "offscreen", "aria-hidden": "true" }, text);
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    skipped.textContent = "Copied";
    skipped.hidden = false;
    clearTimeout(skippedTimer);
    skippedTimer = window.setTimeout(() => (skipped.hidden = true), 1200);
  }

  function remember() {
    const p = new URLSearchParams();
    if (player.t > 0.05 && !player.following) p.set("t", String(Math.ceil(player.t * 100) / 100)) // never before what is in view;
    if (player.channel !== player.firstChannel) p.set("c", String(player.channel));
    if (player.speed !== 1) p.set("speed", String(player.speed));
    if (!player.skipIdle) p.set("idle", "1");
    if (!opened || api.isOffline()) { // what is looked for in one that only this page opened is not for an address that the recorder gets
      if (notes.query) p.set("q", notes.query);
      if (notes.regex) p.set("re", "1");
    }
    if (notes.open) p.set("text", "1");
    if (api.isOffline()) history.replaceState(null, "", `#${p}`);
    else history.replaceState(null, "", p.size ? `?${p}` : location.pathname);
  }

  function describe() {
    replace(channel, ...d().channel_list.map((c) => h("option", { value: c.n }, `${c.n}: ${c.type}${c.command ? ` ${c.command.slice(0, 40)}` : ""}`)));
    channel.hidden = d().channel_list.length < 2;
    channel.value = String(player.channel);
    replace(end, ending(d()));
    goLive.hidden = !d().live;
    const others = (d().watchers ?? []).filter((w) => !w.you).map((w) => (w.node ? `${w.who} (${w.node})` : w.who));
    watchers.textContent = d().watchers === undefined ? "" : others.length > 0 ? `Also watching: ${others.join(", ")}` : "Nobody else is watching";
    watchers.classList.toggle("none", others.length === 0);
    watchers.hidden = watchers.textContent === "";
    stop.button.hidden = !d().may_end;
    drop.button.hidden = !d().may_delete;
    line.index(d().frames, rec.end);
    const words: string[] = [...(d().problems ?? [])];
    if (!d().complete && !d().live) words.unshift(`This recording stops at ${clock(rec.end)} without an end: the host, or its connection to the recorder, was lost. What was received up to there is shown.`);
    if (d().self_attested) words.push("The host ran as the person recorded, who could have altered the recording before it left the host.");
    if (d().channel_list.length === 0) words.push(d().live ? "Nothing has been asked for on this connection yet." : "Nothing was asked for on this connection.");
    state.textContent = words.join(" ");
    state.hidden = words.length === 0;
  }

  const s = d();
  replace(main, h("section", { class: "player" },
    h("div", { class: "title" },
      h("h1", null, h("span", { class: "who" }, s.who || s.src), h("span", { class: "dim" }, " as "), s.local_user, h("span", { class: "dim" }, " on "), s.host),
      end,
      h("span", { class: "dim when" }, `${when(s.start)} \u00b7 ${size(s.size)}`),
      !api.isOffline() && h("span", { class: "files-out" },
        h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/html`, download: `${id}.html`, title: opened ? "one page that plays without a network, and asks for the key" : "one page that plays without a network" }, ".html"),
        s.sealed && !opened && h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/html?sealed=1`, download: `${id}.sealed.html`, title: "the same, sealed: it asks for the key" }, "sealed"),
        !opened && s.channel_list.some((c) => c.type !== "sftp") && h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/cast?version=3`, download: `${id}.cast`, title: "asciicast v3, for asciinema and others" }, ".cast"),
        !opened && s.channel_list.some((c) => c.type !== "sftp") && h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/cast?version=2`, download: `${id}.v2.cast`, title: "asciicast v2, for older players" }, "v2"),
        !opened && h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/text`, download: `${id}.txt`, title: "the text, by command" }, ".txt"),
        h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(id)}/file`, download: `${id}.tsr`, title: "the recording itself, to play and verify" }, ".tsr"))),
    own?.el ?? "", command, watchers, state, problem,
    h("div", { class: "frame" }, stage, big, skipped),
    line.box,
    h("div", { class: "controls" }, playButton, back, forth, time, h("span", { class: "space" }), channel, goLive, speed, idle, textButton, copyButton, gif.button, full, stop.button, drop.button, helpButton),
    notes.find, notes.text, about(s), help, gif.dialog, stop.dialog, drop.dialog));

  playButton.addEventListener("click", () => player.toggle());
  big.addEventListener("click", () => player.play());
  back.addEventListener("click", () => void player.step(-1));
  forth.addEventListener("click", () => void player.step(1));
  time.addEventListener("click", () => { wallClock = !wallClock; player.tell(); });
  speed.addEventListener("change", () => player.setSpeed(Number(speed.value)));
  idle.addEventListener("click", () => player.setSkipIdle(!player.skipIdle));
  channel.addEventListener("change", () => player.setChannel(Number(channel.value)));
  goLive.addEventListener("click", () => void player.follow());
  textButton.addEventListener("click", () => run(notes.show(!notes.open)));
  copyButton.addEventListener("click", () => void copyText());
  full.addEventListener("click", () => wholeScreen());
  helpButton.addEventListener("click", () => help.showModal());
  window.addEventListener("pagehide", remember);

  function run(work: Promise<void>) {
    work.catch((err) => player.hooks.failed(err));
  }

  function wholeScreen() {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void main.requestFullscreen?.();
  }

  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
    const target = e.target as HTMLElement;
    if (target.closest("input, select, textarea")) return;
    // A focused button keeps its own space and return keys.
    if (target.closest("button, a") && (e.key === " " || e.key === "Enter")) return;
    const act: Record<string, () => void> = {
      " ": () => player.toggle(),
      k: () => player.toggle(),
      ArrowLeft: () => player.seek(player.t - (e.shiftKey ? rec.end / 10 : 5)),
      ArrowRight: () => player.seek(player.t + (e.shiftKey ? rec.end / 10 : 5)),
      Home: () => player.seek(0),
      End: () => player.seek(rec.end),
      ",": () => player.step(-1),
      ".": () => player.step(1),
      "-": () => player.faster(-1),
      "+": () => player.faster(1),
      "=": () => player.faster(1),
      i: () => player.setSkipIdle(!player.skipIdle),
      w: () => { wallClock = !wallClock; player.tell(); },
      c: () => player.nextChannel(),
      f: wholeScreen,
      "/": () => notes.focus(),
      n: () => notes.hit(e.shiftKey ? -1 : 1),
      "[": () => notes.command(-1),
      "]": () => notes.command(1),
      t: () => run(notes.show(!notes.open)),
      y: () => void copyText(),
      "?": () => help.showModal(),
    };
    const key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const fn = /^[0-9]$/.test(key) ? () => player.seek((Number(key) / 10) * rec.end) : act[key];
    if (!fn) return;
    e.preventDefault();
    fn();
  });

  notes.query = params.get("q") ?? "";
  notes.regex = params.get("re") === "1";
  describe();
  const known = (v: string | null, ok: (n: number) => boolean): number | undefined => (v !== null && v !== "" && ok(Number(v)) ? Number(v) : undefined);
  await player.open({
    channel: known(params.get("c"), (n) => d().channel_list.some((c) => c.n === n)),
    speed: known(params.get("speed"), (n) => SPEEDS.includes(n)),
    skipIdle: params.get("idle") !== "1",
    t: known(params.get("t"), (n) => Number.isFinite(n) && n >= 0),
  });
  // What runs is looked at as it is, unless the address has a second; what is over begins at its beginning.
  if (d().live && !params.has("t")) void player.follow();
  else big.hidden = player.playing || player.t > 0 || d().channel_list.length === 0;

  // The recorder reads the whole recording for these, so they come after the picture.
  run(notes.load().then(() => (params.get("q") ? notes.search(params.get("q")!, params.get("re") === "1") : undefined)));
  if (params.get("text") === "1") run(notes.show(true));

  if (d().live) {
    follow(rec, opened, {
      grown: () => {
        line.index(d().frames, rec.end);
        player.grown();
      },
      changed: describe,
      over: () => {
        describe();
        player.grown();
        run(notes.reload());
      },
      failed: (err) => player.hooks.failed(err),
      recovered: () => player.hooks.recovered(),
    });
  }
}

function about(s: api.Detail): HTMLElement {
  const rows: [string, string][] = [
    ["Recording", s.id],
    ["Began", new Date(s.start).toLocaleString()],
    ["Person", s.who],
    ["From", `${s.src} ${s.src_addr}`],
    ["Account", `${s.local_user} (uid ${s.uid}) on ${s.host}`],
    ["Let in by", s.rule],
    ["Client", s.client],
    ["Mesh", s.mesh],
    ["You may see it by", s.because ?? ""],
  ];
  return h("details", { class: "about" }, h("summary", null, "About this recording"),
    h("dl", null, ...rows.filter(([, v]) => v.trim()).flatMap(([k, v]) => [h("dt", null, k), h("dd", null, v)])));
}
