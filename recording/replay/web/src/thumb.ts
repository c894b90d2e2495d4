// The picture of a recording in the list: its last screen, small and in its colours.

import type { LastScreen, Run } from "./api";
import { h } from "./dom";
import { MONO, palette, THEME } from "./theme";

const WIDTH = 240; // CSS pixels, at most
const CELL = 3; // width of a character, at most
const KEPT = 300; // pictures in memory, each a canvas

// What is shown again (the list refreshes itself) is not asked for and drawn again while it is the same.
const kept = new Map<string, { size: number; el: HTMLElement }>();

export function keptThumb(id: string, size: number): HTMLElement | undefined {
  const k = kept.get(id);
  return k?.size === size ? k.el : undefined;
}

export function thumb(id: string, size: number, s: LastScreen): HTMLElement | undefined {
  if (s.lines.length === 0) return undefined;
  const cell = Math.min(CELL, WIDTH / s.cols);
  const tall = cell * 2.1;
  const rows = Math.max(s.lines.length, Math.min(s.rows, 5));
  const wide = Math.round(cell * s.cols);
  const last = s.lines.filter((l) => l.trim()).slice(-1)[0]?.trim().slice(0, 80) ?? "";
  const canvas = h("canvas", { role: "img", "aria-label": `last screen, which ends with ${last}` });
  const scale = Math.max(2, window.devicePixelRatio || 1); // it is read close up
  canvas.width = wide * scale;
  canvas.height = Math.round(tall * rows * scale);
  canvas.style.width = `${wide}px`;
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  const g = canvas.getContext("2d");
  if (!g) return undefined;
  g.scale(scale, scale);
  g.fillStyle = THEME.background;
  g.fillRect(0, 0, wide, tall * rows);
  g.textBaseline = "middle";
  s.paint.forEach((runs, y) => {
    let x = 0;
    for (const r of runs) {
      draw(g, r, x * cell, y * tall, cell, tall);
      x += r.w;
    }
  });
  const el = h("div", { class: "thumb" }, canvas);
  kept.delete(id);
  kept.set(id, { size, el });
  for (const old of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(old);
  }
  return el;
}

function draw(g: CanvasRenderingContext2D, r: Run, x: number, y: number, cell: number, tall: number): void {
  let fg = colour(r.f, r.d) ?? THEME.foreground;
  let bg = colour(r.b, false);
  if (r.r) [fg, bg] = [bg ?? THEME.background, fg];
  if (bg) {
    g.fillStyle = bg;
    g.fillRect(x, y, r.w * cell + 0.2, tall + 0.2);
  }
  if (!r.s.trim()) return;
  g.fillStyle = fg;
  g.font = `${r.d ? "bold " : ""}${cell / 0.6}px ${MONO}`;
  // Whatever the font makes of it, a run takes the columns that it took.
  g.fillText(r.s, x, y + tall / 2, r.w * cell);
}

function colour(n: number | undefined, bold: boolean | undefined): string | undefined {
  if (!n) return undefined;
  if (n >= 1 << 24) return `#${(n & 0xffffff).toString(16).padStart(6, "0")}`;
  return palette(bold && n <= 8 ? n + 7 : n - 1);
}
