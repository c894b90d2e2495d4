// A terminal's picture on a canvas, cell by cell: the same terminal, colours and fonts as the player's. The browser's
// fonts have what a program's own would not, wide characters and emoji.

import type { IBufferCell, Terminal } from "@xterm/xterm";
import { MONO, palette, THEME } from "./theme";

const rgb = (n: number) => `rgb(${n >> 16},${(n >> 8) & 255},${n & 255})`;

export class Painter {
  readonly width: number;
  readonly height: number;
  private canvas = document.createElement("canvas");
  private g: CanvasRenderingContext2D;
  private cw: number;
  private ch: number;
  private rows: string[] = []; // what is in each row of the picture

  constructor(readonly cols: number, readonly lines: number, private font: number) {
    [this.cw, this.ch] = cellOf(font);
    this.canvas.width = this.width = cols * this.cw;
    this.canvas.height = this.height = lines * this.ch;
    this.g = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true })!;
    this.g.textBaseline = "alphabetic";
    this.g.fillStyle = THEME.background;
    this.g.fillRect(0, 0, this.width, this.height);
  }

  // draw brings the picture up to date and gives the part that may have changed.
  draw(term: Terminal, cursor: boolean): { top: number; data: Uint8ClampedArray } | undefined {
    const b = term.buffer.active;
    let first = -1;
    let last = -1;
    const cell = b.getNullCell();
    for (let y = 0; y < this.lines; y++) {
      const line = y < term.rows ? b.getLine(b.viewportY + y) : undefined;
      const at = cursor && b.cursorY === y ? Math.min(b.cursorX, term.cols - 1) : -1;
      let now = `${at}\n`;
      const cells = Math.min(this.cols, line ? term.cols : 0);
      for (let x = 0; x < cells; x++) {
        const c = line!.getCell(x, cell);
        if (c) now += `${c.getChars()}\0${c.getFgColor()},${c.getBgColor()},${c.getFgColorMode()},${c.getBgColorMode()},${styleOf(c)};`;
      }
      if (now === this.rows[y]) continue;
      this.rows[y] = now;
      if (first < 0) first = y;
      last = y;
      this.g.fillStyle = THEME.background;
      this.g.fillRect(0, y * this.ch, this.width, this.ch);
      for (let pass = 0; pass < 2; pass++) {
        for (let x = 0; x < cells; x++) {
          const c = line!.getCell(x, cell);
          if (c && c.getWidth() > 0) this.cell(c, x, y, x === at, pass === 0);
        }
      }
    }
    if (first < 0) return undefined;
    return { top: first * this.ch, data: this.g.getImageData(0, first * this.ch, this.width, (last - first + 1) * this.ch).data };
  }

  private cell(c: IBufferCell, x: number, y: number, cursor: boolean, back: boolean): void {
    const { g, cw, ch } = this;
    const bright = c.isBold() && c.isFgPalette() && c.getFgColor() < 8 ? 8 : 0;
    let fg = c.isFgDefault() ? THEME.foreground : c.isFgRGB() ? rgb(c.getFgColor()) : palette(c.getFgColor() + bright);
    let bg = c.isBgDefault() ? THEME.background : c.isBgRGB() ? rgb(c.getBgColor()) : palette(c.getBgColor());
    if (c.isInverse()) [fg, bg] = [bg, fg];
    if (cursor) [fg, bg] = [THEME.background, THEME.cursor];
    const left = x * cw;
    const top = y * ch;
    const wide = c.getWidth() * cw;
    if (back) {
      if (bg === THEME.background) return;
      g.fillStyle = bg;
      g.fillRect(left, top, wide, ch);
      return;
    }
    const text = c.getChars();
    if (c.isInvisible() || (text.trim() === "" && !c.isUnderline() && !c.isStrikethrough())) return;
    g.save();
    g.beginPath();
    g.rect(left, top, wide + (c.isItalic() ? 2 : 0), ch);
    g.clip();
    g.fillStyle = fg;
    if (c.isDim()) g.globalAlpha = 0.5;
    g.font = `${c.isItalic() ? "italic " : ""}${c.isBold() ? "bold " : ""}${this.font}px ${MONO}`;
    const base = top + Math.round(ch * 0.78);
    // What is wider than its cells (an emoji of another font) is made to fit.
    const width = g.measureText(text).width;
    if (width > wide + 1) g.fillText(text, left, base, wide);
    else g.fillText(text, left + (c.getWidth() === 2 ? (wide - width) / 2 : 0), base);
    if (c.isUnderline()) g.fillRect(left, top + Math.round(ch * 0.88), wide, 1);
    if (c.isStrikethrough()) g.fillRect(left, top + Math.round(ch * 0.52), wide, 1);
    g.restore();
  }
}

export function cellOf(font: number): [number, number] {
  const g = document.createElement("canvas").getContext("2d")!;
  g.font = `${font}px ${MONO}`;
  return [Math.max(1, Math.round(g.measureText("W".repeat(20)).width / 20)), Math.round(font * 1.25)];
}

const styleOf = (c: IBufferCell) =>
  [c.isBold(), c.isItalic(), c.isDim(), c.isInverse(), c.isUnderline(), c.isStrikethrough(), c.isInvisible()].reduce((n, on) => n * 2 + (on ? 1 : 0), 0);
