// A terminal's picture. The renderer is never told to accept input, and nothing it would
// answer to recorded queries goes anywhere.

import { Terminal } from "@xterm/xterm";
import { h } from "./dom";
import { MONO, THEME } from "./theme";
import type { View } from "./view";
import type { Happening, Keyframe } from "./api";

const DEFAULT_COLS = 80;
const DEFAULT_ROWS = 24;
const SMALLEST = 6; // px; below this the picture scrolls sideways instead
const LARGEST = 16;

export class Screen implements View {
  readonly el: HTMLElement;
  readonly term: Terminal;
  private box: HTMLElement;
  private pending: Uint8Array[] = [];
  private before = [0, 0]; // the last two bytes
  private aspect = 0.6; // width of a character cell by font size, measured once shown

  constructor() {
    this.box = h("div", { class: "term" });
    this.el = h("div", { class: "stage" }, this.box);
    this.term = new Terminal({
      cols: DEFAULT_COLS,
      rows: DEFAULT_ROWS,
      disableStdin: true,
      cursorBlink: false,
      cursorInactiveStyle: "block",
      scrollback: 0,
      fontSize: 14,
      fontFamily: MONO,
      minimumContrastRatio: 2.5, // what was black on black, or nearly, can be read here
      theme: THEME,
      linkHandler: { activate: () => {} },
      windowOptions: {},
    });
    // Recorded links (OSC 8), titles, clipboard writes and colour queries mean nothing here.
    for (const code of [0, 1, 2, 7, 8, 9, 52, 133, 777, 1337]) this.term.parser.registerOscHandler(code, () => true);
  }

  attach(): void {
    this.term.open(this.box);
    // The renderer draws no cursor before it had the focus once.
    this.term.focus();
    this.term.blur();
    this.term.textarea?.setAttribute("tabindex", "-1");
    this.term.textarea?.setAttribute("aria-hidden", "true");
    this.measure();
    this.fit();
    new ResizeObserver(() => this.fit()).observe(this.el);
  }

  private measure() {
    const canvas = document.createElement("canvas").getContext("2d");
    if (!canvas) return;
    canvas.font = `100px ${this.term.options.fontFamily}`;
    this.aspect = canvas.measureText("W".repeat(50)).width / 5000 || this.aspect;
  }

  // fit chooses the font so that all columns are in view, and rows where the height allows.
  private fit() {
    const width = this.el.clientWidth - 20;
    const height = Math.max(200, window.innerHeight - 300);
    if (width <= 0) return;
    const byWidth = width / (this.term.cols * this.aspect);
    const byHeight = height / (this.term.rows * 1.2);
    const wanted = Math.min(byWidth, Math.max(byHeight, 9));
    const font = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(wanted * 4) / 4));
    if (font !== this.term.options.fontSize) this.term.options.fontSize = font;
  }

  async reset(k: Keyframe | undefined): Promise<void> {
    this.pending = [];
    this.before = [0, 0];
    await this.drained(); // bytes of before must not arrive after the reset
    this.term.reset();
    if (k) {
      this.resize(k.cols, k.rows);
      this.term.write(this.inOrder(k.data));
      this.before = [0, 0];
    }
  }

  apply(e: Happening): void {
    switch (e.k) {
      case "output":
      case "stderr":
        if (e.data) this.pending.push(this.inOrder(e.data));
        break;
      case "open":
        if (e.j?.cols > 0 && e.j?.rows > 0) this.resize(e.j.cols, e.j.rows);
        break;
      case "resize":
        this.flush();
        this.resize(e.j?.cols, e.j?.rows);
        break;
    }
  }

  // inOrder takes the power from characters that turn text round on a page and do nothing in a terminal: each becomes
  // another one without width. They may come in pieces.
  private inOrder(b: Uint8Array): Uint8Array {
    let out = b;
    for (let i = 0; i < b.length; i++) {
      const [x, y, z] = [this.before[0], this.before[1], b[i]];
      this.before = [y, z];
      if (x !== 0xe2 || !((y === 0x80 && ((z >= 0xaa && z <= 0xae) || z === 0x8e || z === 0x8f)) || (y === 0x81 && z >= 0xa6 && z <= 0xa9))) continue;
      if (out === b) out = b.slice();
      out[i] = y === 0x80 ? 0x8b : 0xa0; // zero width space, word joiner
    }
    return out;
  }

  flush(): void {
    if (this.pending.length === 0) return;
    for (const b of this.pending) this.term.write(b);
    this.pending = [];
  }

  settled(): Promise<void> {
    this.flush();
    return this.drained();
  }

  text(): string {
    const b = this.term.buffer.active;
    const lines: string[] = [];
    for (let i = 0; i < this.term.rows; i++) lines.push(b.getLine(b.viewportY + i)?.translateToString(true) ?? "");
    return lines.join("\n").trimEnd();
  }

  dispose(): void {
    this.term.dispose();
    this.el.remove();
  }

  private drained(): Promise<void> {
    return new Promise((done) => this.term.write("", done));
  }

  private resize(cols: unknown, rows: unknown) {
    const c = Math.min(1000, Math.max(2, Math.floor(Number(cols)) || DEFAULT_COLS));
    const r = Math.min(500, Math.max(1, Math.floor(Number(rows)) || DEFAULT_ROWS));
    if (c === this.term.cols && r === this.term.rows) return;
    this.term.resize(c, r);
    this.fit();
  }
}
