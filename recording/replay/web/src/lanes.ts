// Lanes under the timeline: what happened, by kind, at its place in time. One that has something is a row that the
// pointer and the keyboard can read: arrows go from one happening to the next, and the player with them.

import { h, replace } from "./dom";
import { length } from "./format";

export interface Mark {
  t: number;
  end?: number; // what takes time
  ch?: number;
  lane: string; // one of ORDER
  kind: string;
  text: string;
}

export const ORDER: [string, string][] = [["command", "Commands"], ["file", "Files"], ["forward", "Forwards"], ["event", "Events"], ["watcher", "Watchers"]];

const COLOURS: Record<string, string> = { command: "--accent", guess: "--accent", failed: "--bad", file: "--ok", refused: "--bad", forward: "--violet", resize: "--dim", gap: "--bad", bulk: "--warn", watcher: "--warn" };

// Tip is the label that follows the pointer; it stays within the box it is in.
export class Tip {
  readonly el = h("div", { class: "tip", hidden: true });

  show(share: number, text: string, within: HTMLElement): void {
    this.el.hidden = false;
    this.el.textContent = text;
    const parent = this.el.parentElement!.getBoundingClientRect();
    const r = within.getBoundingClientRect();
    const w = this.el.offsetWidth;
    const x = r.left - parent.left + share * r.width - w / 2;
    this.el.style.left = `${Math.max(0, Math.min(parent.width - w, x))}px`;
  }

  hide(): void {
    this.el.hidden = true;
  }
}

export interface LaneHooks {
  seek(t: number, ch?: number): void;
  stamp(t: number): string; // a time in words
  duration(): number;
  now(): number;
}

export class Lanes {
  readonly el = h("div", { class: "lanes" });
  private lanes: Lane[] = [];

  constructor(private hooks: LaneHooks, private tip: Tip) {}

  set(marks: Mark[]): void {
    const focused = this.lanes.find((l) => l.el.contains(document.activeElement))?.name;
    this.lanes = [];
    for (const [name, label] of ORDER) {
      const mine = marks.filter((m) => m.lane === name).sort((a, b) => a.t - b.t);
      if (mine.length > 0) this.lanes.push(new Lane(name, label, mine, this.hooks, this.tip));
    }
    replace(this.el, ...this.lanes.flatMap((l) => [h("span", { class: "lanelabel", "aria-hidden": "true" }, l.label), l.el]));
    this.draw();
    this.lanes.find((l) => l.name === focused)?.el.focus();
  }

  draw(): void {
    for (const l of this.lanes) l.draw();
  }
}

class Lane {
  readonly el: HTMLElement;
  private canvas = h("canvas", { "aria-hidden": "true" });
  private at = -1;

  constructor(readonly name: string, readonly label: string, private marks: Mark[], private hooks: LaneHooks, private tip: Tip) {
    this.el = h("div", { class: "lane", role: "slider", tabindex: "0", "aria-label": label, "aria-valuemin": "1", "aria-valuemax": String(marks.length), "data-lane": name, "data-count": String(marks.length) }, this.canvas);
    this.tell(0);
    this.el.addEventListener("pointermove", (e) => {
      const m = this.near(e);
      if (m) this.show(m);
      else this.tip.hide();
      this.el.style.cursor = m ? "pointer" : "";
    });
    this.el.addEventListener("pointerleave", () => this.tip.hide());
    this.el.addEventListener("click", (e) => {
      const m = this.near(e);
      if (m) this.go(this.marks.indexOf(m));
    });
    this.el.addEventListener("focus", () => {
      if (this.el.matches(":focus-visible")) this.pick(this.current());
    });
    this.el.addEventListener("blur", () => this.tip.hide());
    this.el.addEventListener("keydown", (e) => {
      const now = this.current();
      const to: Record<string, number> = { ArrowRight: this.at < 0 ? now : now + 1, ArrowLeft: now - 1, Home: 0, End: this.marks.length - 1, Enter: now };
      const i = to[e.key];
      if (i === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
      e.preventDefault();
      e.stopPropagation(); // the player's own arrows go by seconds
      this.go(Math.max(0, Math.min(this.marks.length - 1, i)));
    });
  }

  // current is the mark that was chosen here, or the last one that the player has passed.
  private current(): number {
    if (this.at >= 0) return this.at;
    const now = this.hooks.now();
    let i = 0;
    while (i + 1 < this.marks.length && this.marks[i + 1].t <= now) i++;
    return i;
  }

  private tell(i: number): void {
    const m = this.marks[i];
    this.el.setAttribute("aria-valuenow", String(i + 1));
    this.el.setAttribute("aria-valuetext", `${this.words(m)}, ${i + 1} of ${this.marks.length}`);
  }

  private pick(i: number): void {
    this.tell(i);
    this.show(this.marks[i]);
  }

  private go(i: number): void {
    this.at = i;
    const m = this.marks[i];
    this.hooks.seek(m.t, m.ch);
    this.pick(i);
    this.draw();
  }

  private words(m: Mark): string {
    return `${this.hooks.stamp(m.t)}  ${m.text.slice(0, 160)}${m.end && m.end - m.t >= 1 ? `, ${length(m.end - m.t)}` : ""}`;
  }

  private show(m: Mark): void {
    this.tip.show(m.t / (this.hooks.duration() || 1), this.words(m), this.el);
  }

  private near(e: { clientX: number }): Mark | undefined {
    const r = this.el.getBoundingClientRect();
    const whole = this.hooks.duration() || 1;
    const t = ((e.clientX - r.left) / r.width) * whole;
    const reach = (whole / Math.max(1, r.width)) * 6;
    let best: Mark | undefined;
    let within: Mark | undefined;
    for (const m of this.marks) {
      const far = Math.abs(m.t - t);
      if (far <= reach && (!best || far < Math.abs(best.t - t))) best = m;
      if (m.end && m.t <= t && t <= m.end) within = m;
    }
    return best ?? within;
  }

  draw(): void {
    const g = fresh(this.canvas, this.el);
    if (!g) return;
    const w = this.el.clientWidth;
    const ht = this.el.clientHeight;
    const css = getComputedStyle(this.el);
    const x = (t: number) => (t / (this.hooks.duration() || 1)) * w;
    this.marks.forEach((m, i) => {
      g.fillStyle = css.getPropertyValue(COLOURS[m.kind] ?? "--dim");
      const from = Math.max(0, Math.min(w - 3, x(m.t)));
      if (m.end && x(m.end) - from > 3) {
        g.globalAlpha = 0.28;
        g.fillRect(from, 3, x(m.end) - from, ht - 6);
        g.globalAlpha = 1;
      }
      g.globalAlpha = m.kind === "guess" ? 0.75 : 1;
      g.fillRect(from, i === this.at ? 0 : 3, 3, i === this.at ? ht : ht - 6);
      g.globalAlpha = 1;
    });
  }
}

// fresh gives an empty canvas of the size of its box, in the screen's own pixels.
export function fresh(canvas: HTMLCanvasElement, box: HTMLElement): CanvasRenderingContext2D | undefined {
  const w = box.clientWidth;
  const ht = box.clientHeight;
  const g = canvas.getContext("2d");
  if (!g || w === 0) return undefined;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(ht * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(ht * scale);
  }
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, w, ht);
  return g;
}
