// What is known of a recording besides its pictures: commands, what else happened, its text and a
// search in it. It comes from the recorder's own reading of the screen (/transcript, /search).

import * as api from "./api";
import { add, h, replace } from "./dom";
import { clock, length } from "./format";
import { marked } from "./search";
import type { Mark as Tick } from "./timeline";

const SOURCES: Record<string, [string, string]> = {
  exec: ["", "the client asked for it"],
  mark: ["", "the shell marked it"],
  guess: ["guess", "guessed from the screen: any program can show what looks like a prompt"],
};

export interface NotesHooks {
  seek(t: number, channel: number): void;
  ticks(marks: Tick[], hits: number[]): void;
  changed(): void; // query or mode, which the address carries
  now(): number;
}

export class Notes {
  readonly find: HTMLElement;
  readonly text: HTMLElement;
  query = "";
  regex = false;
  open = false;
  private t: api.Transcript | undefined;
  private lines: api.TextLine[] = [];
  private loading: Promise<void> | undefined;
  private hits: api.TextLine[] = [];
  private box = h("input", { type: "search", placeholder: "find on the screen\u2026", "aria-label": "find in this recording", autocomplete: "off", spellcheck: "false" });
  private re = h("button", { type: "button", class: "toggle", "aria-pressed": "false", title: "regular expression" }, ".*");
  private count = h("span", { class: "count", role: "status" });
  private list = h("ol", { class: "hits", hidden: true });
  private body = h("div", { class: "transcript-body" });
  private asked = 0;

  constructor(private id: string, private hooks: NotesHooks) {
    const prev = h("button", { type: "button", title: "previous hit (Shift N)", "aria-label": "previous hit" }, "\u2191");
    const next = h("button", { type: "button", title: "next hit (N)", "aria-label": "next hit" }, "\u2193");
    this.find = h("div", { class: "find" }, h("div", { class: "findbar" }, this.box, this.re, prev, next, this.count), this.list);
    this.text = h("section", { class: "transcript", "aria-label": "transcript", hidden: true }, this.body);
    let typing = 0;
    this.box.addEventListener("input", () => {
      clearTimeout(typing);
      typing = window.setTimeout(() => void this.search(this.box.value, this.regex), 200);
    });
    this.box.addEventListener("keydown", (e) => {
      if (e.key === "Enter") {
        e.preventDefault();
        if (this.box.value !== this.query) void this.search(this.box.value, this.regex).then(() => this.hit(1));
        else this.hit(e.shiftKey ? -1 : 1);
      } else if (e.key === "Escape") {
        this.box.blur();
      }
    });
    this.re.addEventListener("click", () => void this.search(this.box.value, !this.regex));
    prev.addEventListener("click", () => this.hit(-1));
    next.addEventListener("click", () => this.hit(1));
  }

  focus(): void {
    this.box.focus();
    this.box.select();
  }

  // load gets the commands and marks; a recording that went on is read again.
  async load(): Promise<void> {
    this.loading ??= api.transcript(this.id, 0).then((t) => {
      this.t = t;
      this.lines = t.lines;
      this.tell();
      if (this.open) this.draw();
    });
    try {
      await this.loading;
    } catch (err) {
      this.loading = undefined;
      throw err;
    }
  }

  async reload(): Promise<void> {
    this.loading = undefined;
    await this.load();
    if (this.query) await this.search(this.query, this.regex);
  }

  async search(query: string, regex: boolean): Promise<void> {
    const mine = ++this.asked;
    this.query = query;
    this.regex = regex;
    if (this.box.value !== query) this.box.value = query;
    this.re.setAttribute("aria-pressed", String(regex));
    this.hooks.changed();
    this.hits = [];
    let words = "";
    if (query.trim()) {
      try {
        const found = await api.searchIn(this.id, query, regex);
        if (mine !== this.asked) return;
        this.hits = found.lines;
        words = found.lines.length === 0 ? "nothing found" : `${found.lines.length}${found.more ? " and more" : ""} found`;
        if (found.until) words += `; text after ${clock(found.until)} is not searched`;
      } catch (err) {
        if (mine !== this.asked) return;
        words = err instanceof Error ? err.message : String(err);
      }
    }
    this.count.textContent = words;
    replace(this.list, ...this.hits.map((l) => h("li", null, h("button", { type: "button", on: { click: () => this.hooks.seek(l.t, l.ch) } }, h("time", null, clock(l.t, true)), " ", h("span", null, ...(regex ? [l.text] : marked(l.text, query)))))));
    this.list.hidden = this.hits.length === 0;
    this.tell();
  }

  // hit goes to the next or the previous hit from where the player is.
  hit(by: 1 | -1): void {
    const now = this.hooks.now();
    const l = by > 0 ? this.hits.find((x) => x.t > now + 0.06) ?? this.hits[0] : [...this.hits].reverse().find((x) => x.t < now - 0.06) ?? this.hits[this.hits.length - 1];
    if (l) this.hooks.seek(l.t, l.ch);
  }

  // command goes to the next or the previous command.
  command(by: 1 | -1): void {
    const now = this.hooks.now();
    const all = this.t?.commands ?? [];
    const c = by > 0 ? all.find((x) => x.t > now + 0.06) : [...all].reverse().find((x) => x.t < now - 0.06);
    if (c) this.hooks.seek(c.t, c.ch);
  }

  private tell(): void {
    const read = this.t?.until ?? Infinity; // of a very long one the beginning is read
    const marks: Tick[] = (this.t?.commands ?? []).map((c) => ({
      t: c.t, end: c.end && Math.min(c.end, read), ch: c.ch, lane: "command", kind: c.exit || c.signal ? "failed" : c.source === "guess" ? "guess" : "command",
      text: `${c.text || "(empty)"}${c.source === "guess" ? " (a guess)" : ""}${c.signal ? ` \u2192 SIG${c.signal}` : c.exit !== undefined ? ` \u2192 exit ${c.exit}` : ""}`,
    }));
    for (const m of this.t?.marks ?? []) {
      if (watched(m)) continue;
      const lane = m.kind === "file" || m.kind === "forward" ? m.kind : "event";
      marks.push({ t: m.t, end: m.end, ch: m.ch, lane, kind: m.failed ? "refused" : m.kind, text: lane === "event" ? `${m.kind}: ${m.text}` : m.text });
    }
    marks.push(...watchers(this.t?.marks ?? []));
    this.hooks.ticks(marks, this.hits.map((l) => l.t));
  }

  async show(on: boolean): Promise<void> {
    this.open = on;
    this.text.hidden = !on;
    this.hooks.changed();
    if (!on) return;
    await this.load();
    this.draw();
  }

  private draw(): void {
    const t = this.t;
    if (!t) return;
    const go = (at: number, ch: number) => h("button", { type: "button", class: "from", title: "go there", on: { click: () => this.hooks.seek(at, ch) } }, clock(at));
    const byCommand = new Map<number, api.TextLine[]>();
    for (const l of this.lines) {
      const of = byCommand.get(l.command);
      if (of) of.push(l);
      else byCommand.set(l.command, [l]);
    }
    const pre = (lines: api.TextLine[]) => h("pre", { tabindex: "0" }, ...lines.map((l) => h("span", { class: l.stderr ? "stderr" : undefined }, l.text + "\n")));
    replace(this.body);
    const loose = byCommand.get(-1);
    if (loose) add(this.body, h("details", { open: t.commands.length === 0 }, h("summary", null, t.commands.length === 0 ? "What was on the screen" : "Outside of commands"), pre(loose)));
    t.commands.forEach((c, i) => {
      const [label, why] = SOURCES[c.source] ?? ["", ""];
      const lines = byCommand.get(i) ?? [];
      const end = c.signal ? h("span", { class: "badge bad" }, `SIG${c.signal}`) : c.exit !== undefined ? h("span", { class: `badge ${c.exit === 0 ? "ok" : "bad"}` }, `exit ${c.exit}`) : null;
      add(this.body, h("div", { class: "cmdrow" }, go(c.t, c.ch), h("details", { class: "cmd" },
        h("summary", null, h("code", null, c.text || "(empty)"), label && h("span", { class: "badge lost", title: why }, label), end,
          h("small", null, `${c.end ? `${length(c.end - c.t)}, ` : ""}${lines.length === 1 ? "1 line" : `${lines.length} lines`}`)),
        lines.length > 0 && pre(lines))));
    });
    const others = t.marks.filter((m) => m.kind !== "resize");
    if (others.length > 0) {
      add(this.body, h("details", { class: "others" }, h("summary", null, `Files, forwards and notes (${others.length})`),
        h("ul", null, ...others.map((m) => h("li", { class: m.kind }, go(m.t, m.ch), " ", h("b", null, m.kind), " ", m.text)))));
    }
    if (this.lines.length < t.total) {
      const more = h("button", { type: "button", class: "more" }, `${t.total - this.lines.length} more lines`);
      more.addEventListener("click", () => {
        more.disabled = true;
        api.transcript(this.id, this.lines.length).then((rest) => {
          this.lines = this.lines.concat(rest.lines);
          this.draw();
        }, (err) => { more.textContent = String(err.message ?? err); more.disabled = false; });
      });
      add(this.body, more);
    }
    if (t.until) add(this.body, h("p", { class: "dim" }, `Text that came after ${clock(t.until)} is not here; the player has it.`));
  }
}

const watched = (m: api.Mark) => m.kind === "note" && m.text.startsWith("watched ");

// watchers makes stretches of what the host noted each time that somebody came or went: each lasts until the next note.
function watchers(marks: api.Mark[]): Tick[] {
  const notes = marks.filter(watched);
  return notes.flatMap((m, i) => {
    const names = /^watched this session is (watched by .*)$/.exec(m.text);
    return names ? [{ t: m.t, end: notes[i + 1]?.t, lane: "watcher", kind: "watcher", text: names[1] }] : [];
  });
}
