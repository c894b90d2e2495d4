// What a person could read in a recording, made in the page where the recorder cannot: it has no key. The rules are those
// of recording/transcript, whose doc.go says them; sealed_browser_test.go holds both against each other. The screen is the
// player's own terminal.

import { Terminal } from "@xterm/xterm";
import type { Command, Happening, Mark, TextLine, Transcript } from "./api";
import { bulkWords, exitWords, fileWords, forwardWords, markOf } from "./marks";

const QUIET = 0.2;
const PAUSE = 0.05; // which a prompt stands at least before the first key
const LONG = 1; // after which the row with the cursor counts as written
const RECENT = 4096;
const LONGEST = 1024; // of a line or a command
const SCREENS = 64;
const PROMPTS = "$#%>\u276f\u00bb";
const LIMIT = { lines: 100_000, chars: 8 << 20, commands: 5000, marks: 5000, fed: 512 << 20 };

class Lines {
  private text = "";
  private decoder = new TextDecoder();

  add(data: Uint8Array, each: (line: string) => void): void {
    const parts = this.decoder.decode(data, { stream: true }).split("\n");
    parts.forEach((p, i) => {
      if (i > 0) {
        each(this.text);
        this.text = "";
      }
      if (this.text.length < LONGEST + 4) this.text += p.slice(0, LONGEST + 4);
    });
  }

  rest(): string {
    const t = this.text;
    this.text = "";
    return t;
  }
}

interface Channel {
  n: number;
  term?: Terminal;
  top: number; // the first row of the part that scrolls
  at: number; // of the last event applied
  written: number[]; // of each row, when the cursor was last in it
  from: number; // the first row that the event being applied may have written to
  dirty: boolean;
  command: number; // the one that runs, -1 if none
  exec: number; // the one the channel was opened for, -1 for a shell
  seen: Map<string, true>;
  plain: [Lines, Lines];
  marks: boolean; // the shell sends them
  named: string; // the command that the shell told before
  inputX: number;
  inputY: number;
  prompt: string; // the row when the screen stood still behind a prompt
  promptY: number;
}

export class Transcriber {
  private t: Transcript = { commands: [], marks: [], lines: [], total: 0 };
  private chars = 0;
  private fed = 0;
  private full = false;
  private ch = new Map<number, Channel>();
  private forwards = new Map<number, Mark>(); // those that are open
  private busy: Channel | undefined; // whose terminal may not have drawn all it was given
  readonly opened = new Map<number, any>(); // what channels were opened for

  // take applies events; it is there when the terminals are.
  async take(events: Happening[]): Promise<void> {
    for (const e of events) {
      if (this.full) {
        this.t.until ??= e.t;
        break;
      }
      await this.event(e);
    }
    await this.settle();
  }

  private async settle(): Promise<void> {
    const c = this.busy;
    this.busy = undefined;
    if (c) await drained(c);
  }

  private async event(e: Happening): Promise<void> {
    const c = this.ch.get(e.ch);
    const j = e.j ?? {};
    if (this.busy && this.busy !== c) await this.settle(); // what happens on another channel comes after
    switch (e.k) {
      case "open":
        return this.open(e);
      case "output":
      case "stderr":
        if (!c || !e.data) return;
        this.fed += e.data.length;
        if (this.fed > LIMIT.fed) this.full = true;
        if (!c.term) {
          const err = e.k === "stderr";
          c.at = e.t;
          c.plain[err ? 1 : 0].add(e.data, (l) => this.line(c, e.t, l, err));
          return;
        }
        this.busy = c;
        c.term.write("", () => {
          this.still(c, e.t);
          c.at = e.t;
          c.from = cursorY(c);
          c.dirty = true;
        });
        c.term.write(e.data, () => wrote(c));
        return;
      case "resize":
        this.mark(e, "resize", `${Number(j.cols) || 0}\u00d7${Number(j.rows) || 0}`);
        if (!c?.term || !(j.cols > 0 && j.rows > 0)) return;
        await drained(c);
        this.still(c, e.t);
        this.resize(c, j.cols, j.rows);
        return;
      case "exit":
        if (!c) return;
        await this.flush(c, e.t);
        if (c.exec < 0) this.mark(e, "exit", exitWords(j));
        else {
          const k = this.t.commands[c.exec];
          k.end = e.t;
          if (j.signal) k.signal = clean(String(j.signal), 32);
          else k.exit = Number(j.status) || 0;
        }
        return;
      case "close":
        if (!c) return;
        await this.flush(c, e.t);
        this.end(c, e.t);
        c.term?.dispose();
        this.ch.delete(e.ch);
        return;
      case "file": {
        const m = this.mark(e, "file", fileWords(j));
        if (m && j.error) m.failed = true;
        return;
      }
      case "forward": {
        const m = this.mark(e, "forward", forwardWords(j));
        if (!m) return;
        if (j.state === "failed" || j.state === "refused") m.failed = true;
        const first = this.forwards.get(e.ch);
        if (j.state === "open") this.forwards.set(e.ch, m);
        else if (j.state === "closed" && first) {
          first.end = up(e.t);
          this.forwards.delete(e.ch);
        }
        return;
      }
      case "bulk":
        if (!j.bytes || j.ends) this.mark(e, "bulk", bulkWords(j));
        return;
      default: {
        const m = markOf(e);
        if (m && m.text !== "closed") this.mark(e, m.kind, m.text);
      }
    }
  }

  private open(e: Happening): void {
    if (this.ch.size >= SCREENS) return;
    const j = e.j ?? {};
    this.opened.set(e.ch, j);
    const c: Channel = { n: e.ch, top: 0, at: e.t, written: [], from: 0, dirty: false, command: -1, exec: -1, seen: new Map(), plain: [new Lines(), new Lines()],
      marks: false, named: "", inputX: -1, inputY: 0, prompt: "", promptY: -1 };
    if (j.pty) this.terminal(c, j.cols, j.rows);
    this.ch.set(e.ch, c);
    if (j.type === "exec") c.command = c.exec = this.begin(c, e.t, String(j.command ?? ""), "exec");
  }

  private terminal(c: Channel, cols: number, rows: number): void {
    // As on a Windows console lines are not wrapped anew and rows come and go at the bottom, as in the recorder's terminal.
    // A line that scrolls away is still there when that is told.
    const t = new Terminal({ cols: bound(cols, 80, 1000), rows: bound(rows, 24, 500), scrollback: 8, windowsPty: { backend: "winpty", buildNumber: 1 } });
    c.term = t;
    for (const code of [133, 633]) t.parser.registerOscHandler(code, (body) => this.shellMark(c, body));
    t.parser.registerCsiHandler({ final: "r" }, (p) => {
      c.top = Math.max(0, (Number(p[0]) || 1) - 1);
      return false;
    });
    t.onScroll(() => {
      if (c.top === 0 && t.buffer.active.type === "normal") this.scrolled(c, t.buffer.active.getLine(t.buffer.active.baseY - 1)?.translateToString(true) ?? "");
    });
    t.onLineFeed(() => this.left(c));
  }

  private resize(c: Channel, cols: number, rows: number): void {
    c.term!.resize(bound(cols, 80, 1000), bound(rows, 24, 500));
    c.top = 0;
    c.dirty = true;
  }

  // left: the cursor has left a row. Where that was behind a prompt, what is there now is a command.
  private left(c: Channel): void {
    if (c.marks || c.promptY < 0) return;
    const row = rowAt(c, c.promptY);
    if (row.startsWith(c.prompt)) {
      const typed = row.slice(c.prompt.length).trim();
      if (typed) {
        this.line(c, c.at, row, false);
        const n = this.begin(c, c.at, typed, "guess");
        c.command = n >= 0 ? n : c.exec;
      }
    }
    c.promptY = -1;
  }

  private scrolled(c: Channel, text: string): void {
    const at = c.from > 0 && c.written.length > 0 ? c.written[0] : c.at;
    this.line(c, at, text, false);
    if (c.written.length > 0) {
      c.written.shift();
      c.written.push(c.at);
    }
    c.from--;
    c.inputY--;
    c.promptY = Math.max(-1, c.promptY - 1);
  }

  private still(c: Channel, now: number): void {
    const waited = now - c.at;
    if (!c.dirty || waited < PAUSE || this.full) return;
    if (waited >= QUIET) this.rows(c, false);
    const b = c.term!.buffer.active;
    const row = rowAt(c, b.cursorY);
    if (!c.marks && c.promptY !== b.cursorY && row !== "") {
      const all = [...row];
      if (PROMPTS.includes(all[all.length - 1]) && b.cursorX > 0 && b.cursorX <= all.length + 1) {
        this.end(c, c.at);
        c.prompt = row;
        c.promptY = b.cursorY;
      }
    }
    if (waited >= LONG && c.promptY !== b.cursorY && c.inputX < 0) this.line(c, c.at, row, false);
  }

  private rows(c: Channel, all: boolean): void {
    c.dirty = false;
    const y = cursorY(c);
    for (let i = 0; i < c.term!.rows; i++) if (i !== y || all) this.line(c, c.at, rowAt(c, i), false);
  }

  private async flush(c: Channel, at: number): Promise<void> {
    if (c.term) {
      await drained(c);
      this.rows(c, true);
      return;
    }
    c.plain.forEach((l, i) => {
      const rest = l.rest();
      if (rest) this.line(c, at, rest, i === 1);
    });
  }

  // shellMark acts on what the shell says of itself: OSC 133 and 633.
  private shellMark(c: Channel, body: string): boolean {
    const [letter, arg] = body.split(";");
    if (letter === "E") {
      if (arg !== undefined) c.named = arg.replace(/\\(\\|x[0-9a-fA-F]{2})/g, (_, x: string) => (x === "\\" ? "\\" : String.fromCharCode(parseInt(x.slice(1), 16))));
      return true;
    }
    if (!/^[ABCD]$/.test(letter)) return true;
    if (!c.marks) {
      c.marks = true;
      c.promptY = -1;
    }
    const b = c.term!.buffer.active;
    if (letter === "A") {
      this.rows(c, false);
      this.end(c, c.at);
      c.inputX = -1;
    } else if (letter === "B") {
      c.inputX = b.cursorX;
      c.inputY = b.cursorY;
    } else if (letter === "C") {
      const named = c.named;
      c.named = "";
      if (c.inputX < 0 && named === "") return true;
      const text = named || this.typed(c);
      c.inputX = -1;
      if (text === "") return true;
      const n = this.begin(c, c.at, text, "mark");
      if (n >= 0) {
        this.rows(c, false);
        c.command = n;
      }
    } else {
      this.rows(c, false);
      const n = /^\d{1,5}$/.test(arg ?? "") ? Number(arg) : -1;
      this.end(c, c.at, n >= 0 && n < 65536 ? n : undefined);
    }
    c.dirty = true;
    return true;
  }

  private typed(c: Channel): string {
    let text = "";
    const y = cursorY(c);
    for (let row = Math.max(0, c.inputY); row <= y && row - c.inputY < 20; row++) {
      const line = rowAt(c, row, row === c.inputY ? c.inputX : 0);
      text += line;
    }
    return text.trim();
  }

  private line(c: Channel, at: number, raw: string, stderr: boolean): void {
    const text = clean(raw.replace(/ +$/, ""), LONGEST);
    if (text === "" || this.full) return;
    if (c.term) {
      if (c.seen.has(text)) return;
      if (c.seen.size >= RECENT) c.seen.delete(c.seen.keys().next().value!);
      c.seen.set(text, true);
    }
    if (this.t.lines.length >= LIMIT.lines || this.chars + text.length > LIMIT.chars) {
      this.full = true;
      return;
    }
    this.chars += text.length;
    const l: TextLine = { ch: c.n, t: up(at), text, command: c.command };
    if (stderr) l.stderr = true;
    this.t.lines.push(l);
  }

  private begin(c: Channel, at: number, text: string, source: string): number {
    if (this.t.commands.length >= LIMIT.commands) return -1;
    this.t.commands.push({ ch: c.n, t: up(at), text: clean(text, LONGEST), source });
    return this.t.commands.length - 1;
  }

  private end(c: Channel, at: number, exit?: number): void {
    if (c.command < 0 || c.command === c.exec) return;
    const k: Command = this.t.commands[c.command];
    if (k.end === undefined) {
      k.end = up(at);
      if (exit !== undefined) k.exit = exit;
    }
    c.command = c.exec;
  }

  private mark(e: Happening, kind: string, text: string): Mark | undefined {
    if (this.t.marks.length >= LIMIT.marks) return undefined;
    const m: Mark = { ch: e.ch, t: up(e.t), kind, text: clean(text, LONGEST) };
    this.t.marks.push(m);
    return m;
  }

  // done ends the transcript at a time.
  async done(at: number): Promise<Transcript> {
    for (const c of this.ch.values()) {
      await this.flush(c, at);
      this.end(c, at);
      c.term?.dispose();
    }
    this.ch.clear();
    this.t.total = this.t.lines.length;
    return this.t;
  }
}

const up = (t: number) => Math.ceil(t * 1000 - 0.001) / 1000; // at that second the line is there
const bound = (n: unknown, otherwise: number, most: number) => Math.min(most, Math.max(1, Math.floor(Number(n)) || otherwise));
const drained = (c: Channel) => (c.term ? new Promise<void>((done) => c.term!.write("", done)) : undefined);
const cursorY = (c: Channel) => c.term!.buffer.active.cursorY;

function rowAt(c: Channel, y: number, from = 0): string {
  const b = c.term!.buffer.active;
  return (b.getLine(b.baseY + y)?.translateToString(true, from) ?? "").replace(/ +$/, "");
}

function wrote(c: Channel): void {
  const y = cursorY(c);
  const rows = c.term!.rows;
  while (c.written.length < rows) c.written.push(c.at);
  c.written.length = rows;
  for (let i = Math.max(0, Math.min(c.from, y)); i <= Math.max(c.from, y) && i < rows; i++) c.written[i] = c.at;
}

// clean is s without what could hide in a page, and not longer than n.
function clean(s: string, n: number): string {
  return s.slice(0, n).replaceAll("\t", " ").replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd").replace(/[^\p{L}\p{M}\p{N}\p{P}\p{S} \u200d]/gu, "");
}
