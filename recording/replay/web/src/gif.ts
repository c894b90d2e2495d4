// A GIF of a range, made in the page of the player's own terminal.
//
//	frames of the recording ──> Screen (not in view) ──> Painter ──> what changed ──> gifenc
//
// gifenc takes one picture after the other, so that what is in memory is one picture and the file as far as it is;
// modern-gif, which has more recent releases, keeps all pictures until the end.

import { applyPalette, GIFEncoder, quantize, type Palette } from "gifenc";
import type { Happening, Keyframe } from "./api";
import { clock } from "./format";
import { cellOf, Painter } from "./paint";
import type { Recording } from "./recording";
import { Screen } from "./screen";

export interface Wanted {
  from: number;
  to: number; // seconds of the recording
  speed: number;
  idle: number; // seconds of the recording: nothing is still for longer
  font: number; // px
}

export interface Made {
  gif: Blob;
  pictures: number;
  seconds: number;
  stopped?: string; // at what, where it is not all that was wanted
}

export const MOST = { pictures: 2000, bytes: 32 << 20, pixels: 1_600_000 };
const STEP = 0.1; // seconds of the GIF between two pictures
const STAYS = 1.5; // seconds that the last one is shown
const SMALLEST = 6; // px
const CLEAR = 255; // the index of what stays as it was

export async function makeGif(rec: Recording, channel: number, o: Wanted, stop: AbortSignal, progress: (share: number, bytes: number) => void): Promise<Made> {
  const screen = new Screen();
  let shown = true; // the cursor
  for (const [final, on] of [["h", true], ["l", false]] as const) {
    screen.term.parser.registerCsiHandler({ prefix: "?", final }, (p) => {
      if (p.some((n) => n === 25)) shown = on;
      return false;
    });
  }
  screen.term.parser.registerEscHandler({ final: "c" }, () => {
    shown = true;
    return false;
  });
  try {
    const [cols, rows] = await largest(rec, channel, o, stop);
    let font = o.font;
    const pixels = () => cellOf(font).reduce((a, b) => a * b) * cols * rows;
    while (pixels() > MOST.pixels && font > SMALLEST) font--;
    if (pixels() > MOST.pixels) throw new Error(`A terminal of ${cols}\u00d7${rows} is too large for a GIF.`);
    const out = new Strip(new Painter(cols, rows, font));

    const begin = await start(rec, channel, o.from);
    await screen.reset(begin.key);
    let clockNow = 0; // seconds of the GIF
    let before = o.from;
    let since: number | undefined; // when the first change came that no picture has
    let stopped: string | undefined;
    const take = async (at: number) => {
      await screen.settled();
      out.picture(screen.term, shown, at);
    };
    const target = rec.frameAt(o.to);
    let opened = false;
    for (let n = begin.frame; n <= target && !stopped; n++) {
      const f = await rec.frame(n);
      for (const e of f.events) {
        if (e.ch !== channel || !draws(e)) continue;
        if (e.t > o.to) break;
        if (e.t <= o.from) {
          screen.apply(e);
          continue;
        }
        if (!opened) {
          opened = true;
          await take(0);
        }
        clockNow += Math.min(e.t - before, o.idle) / o.speed;
        before = e.t;
        if (since !== undefined && clockNow - since >= STEP) {
          await take(since);
          since = undefined;
          progress((e.t - o.from) / (o.to - o.from || 1), out.bytes);
          if (out.pictures >= MOST.pictures) stopped = `${MOST.pictures} pictures`;
          if (out.bytes >= MOST.bytes) stopped = `${MOST.bytes >> 20} MB`;
          if (stopped) {
            stopped = `It ends at ${clock(e.t, true)} of the recording, where it has ${stopped}, which is the most.`;
            break;
          }
        }
        screen.apply(e);
        since ??= clockNow;
      }
      stop.throwIfAborted();
      await screen.settled();
    }
    if (!opened) await take(0);
    if (since !== undefined && !stopped) await take(since);
    if (!stopped) clockNow += Math.min(o.to - before, o.idle) / o.speed;
    const seconds = out.finish(clockNow);
    return { gif: out.file(), pictures: out.pictures, seconds, stopped };
  } finally {
    screen.dispose();
  }
}

const draws = (e: Happening) => ["output", "stderr", "open", "resize"].includes(e.k);

// start is the keyframe from which the second can be built up, and its frame.
async function start(rec: Recording, channel: number, t: number): Promise<{ frame: number; key?: Keyframe }> {
  for (let n = rec.frameAt(t); n > 0; n--) {
    if (!rec.d.frames[n].keyframe) continue;
    const key = (await rec.frame(n)).keyframes.find((k) => k.channel === channel);
    if (key) return { frame: n, key };
  }
  return { frame: 0 };
}

// largest is how large the terminal gets in the range: a picture has one size.
async function largest(rec: Recording, channel: number, o: Wanted, stop: AbortSignal): Promise<[number, number]> {
  const begin = await start(rec, channel, o.from);
  let [c, r] = begin.key ? [begin.key.cols, begin.key.rows] : [80, 24];
  let cols = 1;
  let rows = 1;
  const see = () => {
    cols = Math.max(cols, Math.min(1000, c));
    rows = Math.max(rows, Math.min(500, r));
  };
  for (let n = begin.frame; n <= rec.frameAt(o.to); n++) {
    for (const e of (await rec.frame(n)).events) {
      if (e.ch !== channel || (e.k !== "open" && e.k !== "resize") || !(e.j?.cols > 0 && e.j?.rows > 0) || e.t > o.to) continue;
      if (e.t > o.from) see();
      [c, r] = [e.j.cols, e.j.rows];
    }
    stop.throwIfAborted();
  }
  see();
  return [cols, rows];
}

// Strip is a GIF on the way. A picture is written when it is known how long it is shown.
class Strip {
  pictures = 0;
  private gif = GIFEncoder({ initialCapacity: 1 << 20 });
  private last: Uint32Array;
  private waiting: { index: Uint8Array; palette: Palette; at: number } | undefined;

  constructor(private painter: Painter) {
    this.last = new Uint32Array(painter.width * painter.height);
  }

  get bytes(): number {
    return this.gif.bytesView().length;
  }

  // picture takes what the terminal shows at a second of the GIF, if it is another than before.
  picture(term: Screen["term"], cursor: boolean, at: number): void {
    const part = this.painter.draw(term, cursor);
    if (!part) return;
    const { last } = this;
    const now = new Uint32Array(part.data.buffer, part.data.byteOffset, part.data.length / 4);
    const from = part.top * this.painter.width;
    const places: number[] = [];
    for (let i = 0; i < now.length; i++) {
      if (now[i] === last[from + i]) continue;
      places.push(i);
      last[from + i] = now[i];
    }
    if (places.length === 0) return;
    const index = new Uint8Array(last.length).fill(CLEAR);
    const { palette, of } = coloured(now, places);
    places.forEach((p, i) => (index[from + p] = of[i]));
    while (palette.length < 256) palette.push([0, 0, 0]);
    this.write(at);
    this.waiting = { index, palette, at };
  }

  private write(until: number): void {
    const w = this.waiting;
    if (!w) return;
    const hundredths = Math.max(2, Math.round(until * 100) - Math.round(w.at * 100));
    this.gif.writeFrame(w.index, this.painter.width, this.painter.height, { palette: w.palette, transparent: true, transparentIndex: CLEAR, delay: hundredths * 10, repeat: 0, dispose: 1 });
    this.waiting = undefined;
    this.pictures++;
  }

  finish(at: number): number {
    const end = Math.max(at, this.waiting?.at ?? 0) + STAYS;
    this.write(end);
    this.gif.finish();
    return end;
  }

  file(): Blob {
    return new Blob([this.gif.bytesView()], { type: "image/gif" });
  }
}

// coloured gives colours for what changed: just those, where they are few enough.
function coloured(now: Uint32Array, places: number[]): { palette: Palette; of: Uint8Array } {
  const known = new Map<number, number>();
  const of = new Uint8Array(places.length);
  for (let i = 0; i < places.length; i++) {
    const c = now[places[i]];
    let n = known.get(c);
    if (n === undefined) {
      if (known.size === CLEAR) break;
      known.set(c, (n = known.size));
    }
    of[i] = n;
    if (i === places.length - 1) return { palette: [...known.keys()].map((x) => [x & 255, (x >> 8) & 255, (x >> 16) & 255]), of };
  }
  const pixels = new Uint32Array(places.length);
  places.forEach((p, i) => (pixels[i] = now[p]));
  const rgba = new Uint8ClampedArray(pixels.buffer);
  const palette = quantize(rgba, CLEAR);
  return { palette, of: applyPalette(rgba, palette) };
}
