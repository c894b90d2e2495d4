// The bar under the picture: how much happened when, where nothing did, and where we are.

import { h } from "./dom";
import { clock, timeOfDay } from "./format";
import { fresh, Lanes, Tip, type Mark } from "./lanes";
import type { FrameInfo } from "./api";

export const IDLE = 3; // seconds without an event that count as idle

export type { Mark };

export class Timeline {
  readonly box: HTMLElement; // the bar and its lanes
  readonly el: HTMLElement;
  private canvas = h("canvas", { "aria-hidden": "true" });
  private tip = new Tip();
  private lanes: Lanes;
  private bars: Float32Array = new Float32Array(0);
  private idle: [number, number][] = [];
  private duration = 0;
  private t = 0;
  private skipping = true;
  private frames: FrameInfo[] = [];
  private hits: number[] = [];

  // start is when the recording began, for the time of day.
  constructor(private start: string, private seek: (t: number, ch?: number) => void) {
    this.el = h("div", { class: "timeline", role: "slider", tabindex: "0", "aria-label": "position", "aria-valuemin": "0" }, this.canvas);
    this.lanes = new Lanes({ seek, stamp: (t) => this.stamp(t), duration: () => this.duration, now: () => this.t }, this.tip);
    this.box = h("div", { class: "timebox" }, h("span", { class: "lanelabel", "aria-hidden": "true" }, "Activity"), this.el, this.lanes.el, this.tip.el);
    let dragging = false;
    this.el.addEventListener("pointerdown", (e) => {
      dragging = true;
      this.el.setPointerCapture(e.pointerId);
      this.seek(this.timeAt(e));
    });
    this.el.addEventListener("pointermove", (e) => {
      const t = this.timeAt(e);
      this.tip.show(t / (this.duration || 1), this.stamp(t) + (this.idleAt(t) ? "  nothing happens" : ""), this.el);
      if (dragging) this.seek(t);
    });
    this.el.addEventListener("pointerup", () => (dragging = false));
    this.el.addEventListener("pointercancel", () => (dragging = false));
    this.el.addEventListener("pointerleave", () => this.tip.hide());
    new ResizeObserver(() => this.index(this.frames, this.duration)).observe(this.el);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.draw();
      this.lanes.draw();
    });
  }

  private timeAt(e: PointerEvent): number {
    const r = this.el.getBoundingClientRect();
    return Math.max(0, Math.min(1, (e.clientX - r.left) / r.width)) * this.duration;
  }

  // index works out activity and idle time from the frames' first and last event alone.
  index(frames: FrameInfo[], duration: number): void {
    this.frames = frames;
    this.duration = duration;
    const n = Math.max(1, Math.floor(this.el.clientWidth / 3));
    const bars = new Float32Array(n);
    this.idle = [];
    let end = 0;
    for (const f of frames) {
      if (f.first - end >= IDLE) this.idle.push([end, f.first]);
      end = Math.max(end, f.last);
      const a = Math.min(n - 1, Math.floor((f.first / (duration || 1)) * n));
      const b = Math.min(n - 1, Math.floor((f.last / (duration || 1)) * n));
      const share = Math.max(1, f.bytes) / (b - a + 1);
      for (let i = a; i <= b; i++) bars[i] += share;
    }
    if (duration - end >= IDLE) this.idle.push([end, duration]);
    let top = 0;
    for (let i = 0; i < n; i++) {
      if (bars[i] > 0) bars[i] = Math.log2(1 + bars[i]); // one big listing must not flatten the rest
      top = Math.max(top, bars[i]);
    }
    for (let i = 0; i < n; i++) bars[i] /= top || 1;
    this.bars = bars;
    this.el.setAttribute("aria-valuemax", String(Math.round(duration)));
    this.draw();
    this.lanes.draw();
  }

  // ticks sets what is marked: commands and other events in lanes, hits of a search through the bar.
  ticks(marks: Mark[], hits: number[]): void {
    this.lanes.set(marks);
    this.hits = hits;
    this.el.dataset.marks = String(marks.length);
    this.el.dataset.hits = String(hits.length);
    this.draw();
  }

  private stamp(t: number): string {
    return `${clock(t, true)} \u00b7 ${timeOfDay(this.start, t)}`;
  }

  private idleAt(t: number): boolean {
    return this.idle.some(([a, b]) => a < t && t < b);
  }

  at(t: number, skipping: boolean): void {
    this.t = t;
    this.skipping = skipping;
    this.el.setAttribute("aria-valuenow", String(Math.round(t)));
    this.el.setAttribute("aria-valuetext", `${clock(t)} of ${clock(this.duration)}`);
    this.draw();
  }

  private draw(): void {
    const g = fresh(this.canvas, this.el);
    if (!g) return;
    const w = this.el.clientWidth;
    const ht = this.el.clientHeight;
    const css = getComputedStyle(this.el);
    const x = (t: number) => (t / (this.duration || 1)) * w;
    const here = x(this.t);
    // Idle time, hatched; fainter when it is not going to be skipped.
    g.save();
    g.globalAlpha = this.skipping ? 0.8 : 0.3;
    g.strokeStyle = css.getPropertyValue("--line");
    g.lineWidth = 1;
    for (const [a, b] of this.idle) {
      const xa = x(a);
      const xb = x(b);
      if (xb - xa < 2) continue;
      g.save();
      g.beginPath();
      g.rect(xa, 0, xb - xa, ht);
      g.clip();
      g.beginPath();
      for (let i = xa - ht; i < xb; i += 6) {
        g.moveTo(i, ht);
        g.lineTo(i + ht, 0);
      }
      g.stroke();
      g.restore();
    }
    g.restore();
    const n = this.bars.length;
    const bw = w / n;
    for (let i = 0; i < n; i++) {
      if (this.bars[i] === 0) continue;
      const bh = Math.max(3, this.bars[i] * (ht - 4));
      g.fillStyle = css.getPropertyValue((i + 0.5) * bw <= here ? "--accent" : "--faint");
      g.fillRect(i * bw, ht - bh, Math.max(1, bw - 1), bh);
    }
    g.fillStyle = css.getPropertyValue("--warn");
    for (const t of this.hits) g.fillRect(x(t) - 0.5, 0, 1.5, ht);
    g.fillStyle = css.getPropertyValue("--accent");
    g.fillRect(Math.min(w - 2, Math.max(0, here - 1)), 0, 2, ht);
  }
}
