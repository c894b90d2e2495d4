// Views without a terminal: what a command wrote, and what was done to files.

import { add, h, replace } from "./dom";
import { clock, size, visible } from "./format";
import type { View } from "./view";
import type { Happening } from "./api";

const SHOWN = 400_000; // characters; more than that would stall the page, and nobody reads it here

// Output is a command's standard output and standard error, told apart.
export class Output implements View {
  readonly el: HTMLElement;
  private pre = h("pre", { class: "output", tabindex: "0", "aria-label": "output of the command" });
  private cutNote = h("p", { class: "cut", hidden: true }, "Earlier output is not shown here; download the recording to read all of it.");
  private decoders = new Map<string, TextDecoder>();
  private parts: { kind: string; text: string }[] = [];
  private chars = 0;
  private fresh: { kind: string; text: string }[] = [];
  private anew = true;

  constructor() {
    this.el = h("div", { class: "stage plain" }, this.cutNote, this.pre);
  }

  attach(): void {}

  async reset(): Promise<void> {
    this.decoders.clear();
    this.parts = [];
    this.fresh = [];
    this.chars = 0;
    this.anew = true;
    this.cutNote.hidden = true;
  }

  apply(e: Happening): void {
    if (e.k === "bulk" && e.j && (!e.j.bytes || e.j.ends)) {
      const words = e.j.bytes ? `${size(Number(e.j.bytes))} of ${e.j.stream} are not kept here, SHA-256 ${e.j.sha256}${e.j.tail ? "; the end follows" : ""}` : `what follows of ${e.j.stream} is counted and hashed, not kept`;
      this.put("elided", `\n\u22ef ${visible(words)} \u22ef\n`);
    }
    if (e.k === "gap" && e.j) this.put("elided", `\n\u22ef ${size(Number(e.j.bytes))} are missing: ${visible(String(e.j.why ?? ""))} \u22ef\n`);
    if ((e.k !== "output" && e.k !== "stderr" && e.k !== "input") || !e.data) return;
    let d = this.decoders.get(e.k);
    if (!d) this.decoders.set(e.k, (d = new TextDecoder()));
    const text = visible(d.decode(e.data, { stream: true }));
    if (!text) return;
    this.put(e.k, text);
  }

  private put(kind: string, text: string): void {
    const part = { kind, text };
    this.parts.push(part);
    this.fresh.push(part);
    this.chars += text.length;
    while (this.chars > SHOWN && this.parts.length > 1) {
      this.chars -= this.parts.shift()!.text.length;
      this.anew = true;
      this.cutNote.hidden = false;
    }
  }

  flush(): void {
    if (!this.anew && this.fresh.length === 0) return;
    const bottom = this.pre.scrollTop + this.pre.clientHeight >= this.pre.scrollHeight - 4;
    if (this.anew) replace(this.pre);
    for (const p of this.anew ? this.parts : this.fresh) add(this.pre, h("span", { class: p.kind === "output" ? "stdout" : p.kind }, p.text));
    this.fresh = [];
    this.anew = false;
    if (bottom) this.pre.scrollTop = this.pre.scrollHeight;
  }

  async settled(): Promise<void> {
    this.flush();
  }

  text(): string {
    return this.parts.map((p) => p.text).join("");
  }

  dispose(): void {
    this.el.remove();
  }
}

const FILE_OPS: Record<string, string> = { get: "download", put: "upload", remove: "remove", rename: "rename", mkdir: "make folder", rmdir: "remove folder", symlink: "symbolic link", link: "link", setstat: "change attributes", list: "list folder", stat: "look up" };

// Files is the table of what was done to files.
export class Files implements View {
  readonly el: HTMLElement;
  private body = h("tbody", null);
  private rows: Happening[] = [];
  private drawn = 0;

  constructor() {
    const head = ["at", "what", "path", "size", "SHA-256", "result"].map((s) => h("th", { scope: "col" }, s));
    this.el = h("div", { class: "stage plain" }, h("div", { class: "files", tabindex: "0", role: "region", "aria-label": "what was done to files" }, h("table", null, h("thead", null, h("tr", null, ...head)), this.body)));
  }

  attach(): void {}

  async reset(): Promise<void> {
    this.rows = [];
    this.drawn = 0;
    replace(this.body);
  }

  apply(e: Happening): void {
    if (e.k === "file" && e.j) this.rows.push(e);
  }

  flush(): void {
    for (; this.drawn < this.rows.length; this.drawn++) {
      const { t, j } = this.rows[this.drawn];
      const op = String(j.op ?? "");
      const path = visible(String(j.path ?? "")) + (j.target ? ` \u2192 ${visible(String(j.target))}` : "");
      const hash = String(j.sha256 ?? "");
      add(this.body, h("tr", { class: j.error ? "bad" : undefined },
        h("td", { class: "num" }, clock(t, true)),
        h("td", null, FILE_OPS[op] ?? visible(op)),
        h("td", { class: "path" }, path),
        h("td", { class: "num" }, j.bytes ? size(Number(j.bytes)) : ""),
        h("td", { class: "hash", title: hash || undefined }, hash.slice(0, 12)),
        h("td", null, j.error ? visible(String(j.error)) : "ok")));
    }
  }

  async settled(): Promise<void> {
    this.flush();
  }

  text(): string {
    return this.el.innerText;
  }

  dispose(): void {
    this.el.remove();
  }
}
