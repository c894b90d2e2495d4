// Search over what was on the screens of all recordings.

import * as api from "./api";
import { add, h, replace } from "./dom";
import { clock, when } from "./format";

export async function showSearch(main: HTMLElement): Promise<void> {
  const box = h("input", { type: "search", id: "search", placeholder: "words that were on a screen; \u201ctwo words\u201d in quotes", autocomplete: "off", spellcheck: "false", "aria-label": "search all recordings", value: new URLSearchParams(location.search).get("q") ?? "" });
  const form = h("form", { class: "tools", role: "search" }, box, h("button", { class: "more plainbutton" }, "Search"));
  const found = h("div", { class: "found" });
  const note = h("p", { class: "note", role: "status" });
  const partial = h("p", { class: "note partial" });
  const more = h("button", { type: "button", class: "more", hidden: true }, "Older recordings");
  let next: string | undefined;
  let asked = 0;

  async function run(older: boolean) {
    const mine = ++asked;
    const q = box.value.trim();
    history.replaceState(null, "", q ? `${api.base}/search?q=${encodeURIComponent(q)}` : `${api.base}/search`);
    document.title = q ? `${q} \u2013 search` : "Search";
    if (!older) replace(found);
    more.hidden = true;
    if (!q) {
      note.textContent = "Every word must occur in one line.";
      return;
    }
    note.textContent = older ? "" : "Searching\u2026";
    try {
      const page = await api.search(q, older ? next : undefined);
      if (mine !== asked) return;
      document.getElementById("viewer")!.textContent = page.viewer.who;
      for (const r of page.recordings) add(found, hit(r, q));
      next = page.next;
      more.hidden = !next;
      if (!older) partial.textContent = page.partial ? incomplete(page.partial) : "";
      note.textContent = found.childElementCount === 0 ? "That was on no screen that you may see." : "";
    } catch (err) {
      if (mine === asked) note.textContent = err instanceof Error ? err.message : String(err);
    }
  }

  form.addEventListener("submit", (e) => {
    e.preventDefault();
    void run(false);
  });
  more.addEventListener("click", () => void run(true));
  replace(main, h("section", { class: "searching" }, h("h1", { class: "unseen" }, "Search what was on the screens"), form, partial, found, note, more));
  box.focus();
  await run(false);
}

function hit(r: api.Hit, q: string): HTMLElement {
  const at = (t?: number, ch?: number) => {
    const p = new URLSearchParams();
    if (t !== undefined) p.set("t", t.toFixed(3));
    if (ch !== undefined) p.set("c", String(ch));
    p.set("q", q.replaceAll('"', ""));
    return `${api.base}/r/${encodeURIComponent(r.id)}?${p}`;
  };
  return h("article", { class: "hit", "data-id": r.id },
    h("h2", null, h("a", { href: at() }, r.who || r.src, h("span", { class: "dim" }, " as "), r.local_user, h("span", { class: "dim" }, " on "), r.host), h("small", null, when(r.start))),
    h("ol", null, ...r.lines.map((l) => h("li", null, h("a", { href: at(l.t, l.ch) }, h("time", null, clock(l.t, true)), " ", h("code", null, ...marked(l.text, q)))))),
    r.more && h("small", null, "and earlier lines"),
    r.indexed_until !== undefined && h("small", { class: "partial" }, `what came after ${clock(r.indexed_until)} is not searched here: look inside this recording`));
}

// incomplete says what this search does not look at.
function incomplete(p: api.Partial): string {
  const n = p.recordings === 1 ? "One recording that you may see is" : `${p.more ? "More than " : ""}${p.recordings} recordings that you may see are`;
  return `${n} not searched whole, of ${p.hosts.join(", ")}: search inside them.`;
}

// marked shows where the words are in a line.
export function marked(text: string, q: string): (Node | string)[] {
  const words = q.replaceAll(/["\s]+/g, " ").trim().split(" ").filter((w) => w).map((w) => w.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (words.length === 0) return [text];
  return text.split(new RegExp(`(${words.join("|")})`, "giu")).map((part, i) => (i % 2 ? h("mark", null, part) : part));
}
