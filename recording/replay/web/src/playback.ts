// Playback moves through one channel of a recording and keeps its view right.
//
//	open, seek ──> find frame and keyframe ──> reset view ──> apply up to t ──> play: tick
//
// A seek that is overtaken by another stops at its next wait. While a seek is under way no
// tick applies anything.

import { Files, Output } from "./plain";
import { Screen } from "./screen";
import { IDLE } from "./timeline";
import type { Channel, Frame, Happening, Keyframe } from "./api";
import type { Recording } from "./recording";
import type { View } from "./view";

export const SPEEDS = [0.25, 0.5, 1, 2, 4, 8, 16];
const FAR = 40; // frames behind the end at which following a running recording jumps
const PAUSE = 0.5; // seconds of an idle stretch that are shown at either end, at speed 1

export interface Hooks {
  moved(t: number): void;
  changed(): void;
  skipped(seconds: number): void;
  failed(err: unknown): void;
  recovered(): void;
  atEnd(): void;
}

export class Playback {
  t = 0;
  speed = 1;
  playing = false;
  skipIdle = true;
  channel = 0;
  following = false; // the end of a running recording
  private view: View | undefined;
  private frameNo = 0; // the frame that next() looks in
  private pos = 0; // the first of its events that is not applied
  private lastEvent = 0;
  private seeking = 0; // counts seeks; the last one wins
  private working = false; // a seek is under way
  private ticked = 0;

  constructor(readonly rec: Recording, private stage: HTMLElement, readonly hooks: Hooks) {}

  private get busy(): boolean {
    return this.working;
  }

  // Screen readers wait with reading while a picture is being made, and so do tests.
  private set busy(on: boolean) {
    this.working = on;
    this.stage.setAttribute("aria-busy", String(on));
  }

  get firstChannel(): number {
    const all = this.rec.d.channel_list;
    return (all.find((c) => c.pty) ?? all.find((c) => c.type !== "") ?? all[0])?.n ?? 0;
  }

  async open(o: { channel?: number; speed?: number; skipIdle: boolean; t?: number }): Promise<void> {
    this.channel = o.channel ?? this.firstChannel;
    this.speed = o.speed ?? 1;
    this.skipIdle = o.skipIdle;
    this.show();
    await this.seek(o.t ?? 0);
    requestAnimationFrame((now) => this.tick(now));
  }

  toggle(): void {
    if (this.playing) this.pause();
    else this.play();
  }

  play(): void {
    if (this.t >= this.rec.end && !this.rec.d.live) void this.seek(0);
    this.playing = true;
    this.hooks.changed();
  }

  pause(): void {
    this.playing = false;
    this.following = false;
    this.hooks.changed();
  }

  setSpeed(s: number): void {
    this.speed = s;
    this.hooks.changed();
  }

  faster(by: number): void {
    const i = SPEEDS.indexOf(this.speed) + by;
    if (i >= 0 && i < SPEEDS.length) this.setSpeed(SPEEDS[i]);
  }

  setSkipIdle(on: boolean): void {
    this.skipIdle = on;
    this.hooks.changed();
  }

  setChannel(n: number): void {
    if (n === this.channel) return;
    this.channel = n;
    this.show();
    void this.seek(this.t);
  }

  nextChannel(): void {
    const all = this.rec.d.channel_list;
    if (all.length < 2) return;
    this.setChannel(all[(all.findIndex((c) => c.n === this.channel) + 1) % all.length].n);
  }

  // grown is called after the recording became longer or ended.
  grown(): void {
    if (!this.view && this.rec.d.channel_list.length > 0) {
      this.channel = this.firstChannel;
      this.show();
      void this.seek(this.t);
    }
    if (this.following && this.rec.d.frames.length - this.frameNo > FAR) void this.jump(this.rec.end);
    this.tell();
  }

  // follow goes to the end and stays there.
  async follow(): Promise<void> {
    this.following = true;
    await this.jump(this.rec.end);
    this.play();
  }

  tell(): void {
    this.hooks.moved(this.t);
    if (this.t >= this.rec.end) this.hooks.atEnd();
  }

  private show() {
    const c = this.rec.d.channel_list.find((x) => x.n === this.channel);
    this.view?.dispose();
    this.view = c && viewFor(c);
    if (!this.view) return;
    this.stage.append(this.view.el);
    this.view.attach();
  }

  text(): string {
    return this.view?.text() ?? "";
  }

  seek(to: number): Promise<void> {
    this.following = false;
    return this.jump(to);
  }

  private async jump(to: number): Promise<void> {
    const mine = ++this.seeking;
    this.busy = true;
    this.t = Math.max(0, Math.min(to, this.rec.end));
    this.hooks.moved(this.t);
    try {
      await this.rebuild(mine);
      if (mine === this.seeking) this.hooks.recovered();
    } catch (err) {
      if (mine === this.seeking) {
        this.playing = false;
        this.hooks.failed(err);
      }
    }
    if (mine !== this.seeking) return;
    this.busy = false;
    this.tell();
    this.hooks.changed();
  }

  // rebuild makes the view what it was at this.t: from the nearest keyframe before, or from the
  // channel's beginning.
  private async rebuild(mine: number): Promise<void> {
    if (!this.view || this.rec.d.frames.length === 0) return;
    const target = this.rec.frameAt(this.t);
    let from = 0;
    let key: Keyframe | undefined;
    if (this.view instanceof Screen) {
      for (let n = target; n > 0; n--) {
        if (!this.rec.d.frames[n].keyframe) continue;
        key = (await this.rec.frame(n)).keyframes.find((k) => k.channel === this.channel);
        if (mine !== this.seeking) return;
        if (key) {
          from = n;
          break;
        }
      }
    }
    const view = this.view;
    await view.reset(key);
    this.frameNo = from;
    this.pos = 0;
    this.lastEvent = key ? this.rec.d.frames[from].first : 0;
    for (let n = from; n <= target; n++) {
      const f = await this.rec.frame(n);
      if (mine !== this.seeking || view !== this.view) return;
      this.frameNo = n;
      this.pos = 0;
      this.applyUpTo(f, this.t);
      if (n < target) await view.settled();
    }
    await view.settled();
  }

  private applyUpTo(f: Frame, t: number) {
    for (; this.pos < f.events.length && f.events[this.pos].t <= t; this.pos++) {
      const e = f.events[this.pos];
      if (e.ch !== this.channel) continue;
      this.view?.apply(e);
      this.lastEvent = e.t;
    }
  }

  // upcoming is the next event of this channel, as far as frames are here. Where they are not,
  // it says when the first frame that is missing begins.
  private upcoming(): { e?: Happening; t: number } {
    let pos = this.pos;
    for (let n = this.frameNo; n < this.rec.d.frames.length; n++) {
      const f = this.rec.here(n);
      if (!f) {
        void this.rec.frame(n).catch((err) => this.hooks.failed(err));
        return { t: this.rec.d.frames[n].first };
      }
      for (; pos < f.events.length; pos++) {
        if (f.events[pos].ch === this.channel) return { e: f.events[pos], t: f.events[pos].t };
      }
      pos = 0;
      if (n > this.frameNo + 8) return { t: this.rec.d.frames[n].last };
    }
    return { t: this.rec.end };
  }

  private tick(now: number) {
    requestAnimationFrame((later) => this.tick(later));
    const dt = Math.min(0.25, (now - this.ticked) / 1000);
    this.ticked = now;
    if (!this.playing || this.busy || !this.view) return;
    // Who follows sees what there is as it comes, however long nothing was before.
    let t = this.following ? this.rec.end : Math.min(this.rec.end, this.t + dt * this.speed);
    const pause = PAUSE * Math.max(1, this.speed);
    const next = this.upcoming();
    if (!this.following && this.skipIdle && next.t - this.lastEvent >= IDLE && t - this.lastEvent > pause && next.t - t > pause) {
      this.hooks.skipped(next.t - pause - t);
      t = next.t - pause;
    }
    // Apply frame by frame; where one has not come yet, time waits for it.
    const frames = this.rec.d.frames;
    while (this.frameNo < frames.length) {
      const f = this.rec.here(this.frameNo);
      if (!f) {
        t = Math.min(t, Math.max(this.t, frames[this.frameNo].first));
        void this.rec.frame(this.frameNo).catch((err) => {
          this.pause();
          this.hooks.failed(err);
        });
        break;
      }
      this.applyUpTo(f, t);
      if (this.pos < f.events.length || this.frameNo === frames.length - 1 || frames[this.frameNo + 1].first > t) break;
      this.frameNo++;
      this.pos = 0;
    }
    if (this.frameNo + 1 < frames.length && !this.rec.here(this.frameNo + 1)) void this.rec.frame(this.frameNo + 1).catch(() => {});
    this.view.flush();
    this.t = t;
    this.tell();
    if (t >= this.rec.end && !this.rec.d.live) this.pause();
  }

  // step goes to the next or the previous event and pauses there.
  async step(by: 1 | -1): Promise<void> {
    this.playing = false;
    if (by > 0) {
      const next = this.upcoming();
      await this.seek(next.t);
      return;
    }
    let n = Math.min(this.frameNo, this.rec.d.frames.length - 1);
    try {
      for (; n >= 0; n--) {
        const f = await this.rec.frame(n);
        const before = f.events.filter((e) => e.ch === this.channel && e.t < this.t - 1e-6);
        if (before.length > 0) {
          await this.seek(before[before.length - 1].t);
          return;
        }
      }
    } catch (err) {
      this.hooks.failed(err);
      return;
    }
    await this.seek(0);
  }
}

function viewFor(c: Channel): View {
  if (c.pty) return new Screen();
  if (c.type === "sftp") return new Files();
  return new Output();
}
