// The dialog that makes a GIF of a range. The file is made here and goes nowhere; the recorder is told before.

import * as api from "./api";
import { h, replace } from "./dom";
import { clock, size } from "./format";
import type { Playback } from "./playback";

const SPEEDS = [0.5, 1, 2, 4, 8, 16];
const LONGEST = 3600; // seconds of a recording in one

export function gifMaker(player: Playback): { button: HTMLButtonElement; dialog: HTMLDialogElement } {
  const rec = player.rec;
  const number = (label: string) => h("input", { type: "number", min: "0", step: "0.1", "aria-label": label });
  const from = number("from second");
  const to = number("to second");
  const speed = h("select", { "aria-label": "speed of the GIF" }, ...SPEEDS.map((s) => h("option", { value: s, selected: s === 1 }, `${s}\u00d7`)));
  const idle = h("select", { "aria-label": "longest pause" }, ...[0.5, 1, 2, 5, 30].map((s) => h("option", { value: s, selected: s === 2 }, `${s} s`)), h("option", { value: LONGEST }, "as it was"));
  const font = h("select", { "aria-label": "size of the letters" }, ...[["10", "small"], ["14", "medium"], ["20", "large"]].map(([v, w]) => h("option", { value: v, selected: v === "14" }, w)));
  const bar = h("progress", { max: "1", value: "0", hidden: true, "aria-label": "progress" });
  const note = h("p", { class: "gifsays", role: "status" });
  const make = h("button", { type: "button" }, "Make it");
  const close = h("button", { type: "button" }, "Close");
  const row = (label: string, el: HTMLElement, after?: HTMLElement) => h("label", null, h("span", null, label), el, after);
  const here = (box: HTMLInputElement) => {
    const b = h("button", { type: "button", class: "here" }, "here");
    b.addEventListener("click", () => (box.value = player.t.toFixed(1)));
    return b;
  };
  const dialog = h("dialog", { class: "gif" }, h("h2", null, "GIF of a part"),
    row("from (s)", from, here(from)), row("to (s)", to, here(to)), row("speed", speed), row("longest pause", idle), row("letters", font),
    bar, note, h("div", { class: "buttons" }, close, make));
  const button = h("button", { type: "button", class: "toggle gifbutton", title: "a GIF of a part, made in this page" }, "GIF");
  let work: AbortController | undefined;

  button.addEventListener("click", () => {
    if (!work) {
      from.value = Math.min(player.t, Math.max(0, rec.end - 0.1)).toFixed(1);
      to.value = Math.min(rec.end, player.t + 30).toFixed(1);
      note.textContent = "";
    }
    dialog.showModal();
  });
  close.addEventListener("click", () => (work ? work.abort() : dialog.close()));
  dialog.addEventListener("close", () => work?.abort());

  make.addEventListener("click", () => void (async () => {
    const o = { from: Number(from.value), to: Math.min(Number(to.value), rec.end), speed: Number(speed.value), idle: Number(idle.value), font: Number(font.value) };
    const say = (...words: (Node | string)[]) => replace(note, ...words);
    if (!(o.from >= 0 && o.from < o.to)) return say("The end must come after the beginning.");
    if (o.to - o.from > LONGEST) return say(`One GIF has at most ${LONGEST / 60} minutes of a recording.`);
    const mine = (work = new AbortController());
    make.disabled = true;
    close.textContent = "Cancel";
    bar.hidden = false;
    bar.value = 0;
    say("Making it\u2026");
    try {
      const channel = player.channel;
      await api.exported(rec.d.id, "gif", channel, o.from, o.to);
      const { makeGif } = await import("./gif");
      const made = await makeGif(rec, channel, o, mine.signal, (share, bytes) => {
        bar.value = share;
        say(`${Math.floor(share * 100)} %, ${size(bytes)}`);
      });
      const link = h("a", { href: URL.createObjectURL(made.gif), download: `${rec.d.id}-${o.from.toFixed(0)}-${o.to.toFixed(0)}.gif` }, "Save it");
      say(`${made.pictures} pictures, ${clock(made.seconds, true)}, ${size(made.gif.size)}. ${made.stopped ?? ""} `, link);
      link.focus();
      link.click();
    } catch (err) {
      say(mine.signal.aborted ? "Cancelled." : err instanceof Error ? err.message : String(err));
    } finally {
      work = undefined;
      make.disabled = false;
      close.textContent = "Close";
      bar.hidden = true;
    }
  })());
  return { button, dialog };
}
