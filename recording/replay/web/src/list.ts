// The list: who was where, as whom, when, for how long, and how it ended.

import * as api from "./api";
import { h, replace } from "./dom";
import { length, size, when } from "./format";

const REFRESH = 5000; // ms, while something is live and the page is in view

export async function showList(main: HTMLElement): Promise<void> {
  const params = new URLSearchParams(location.search);
  let text = params.get("q") ?? "";
  let own = params.get("own") === "1";

  const box = h("input", { type: "search", id: "filter", placeholder: "words, or who: host: as: tag: kind: cmd: path: exit:!0 after:2026-11-01 is:live", title: "words must occur in person, host, account, command or id. Terms: who: host: as: from: tag: kind: cmd: path: exit: after: before: longer: is:live is:interactive", autocomplete: "off", spellcheck: "false", value: text, "aria-label": "filter recordings" });
  const all = h("button", { type: "button", "aria-pressed": String(!own) }, "All I may see");
  const mine = h("button", { type: "button", "aria-pressed": String(own) }, "Mine");
  const rows = h("tbody", null);
  const head = ["Who", "Where", "What", "When", "How long", "End"].map((s) => h("th", { scope: "col" }, s));
  const table = h("table", { class: "list" }, h("thead", null, h("tr", null, ...head)), rows);
  const note = h("p", { class: "note", role: "status" });
  const more = h("button", { type: "button", class: "more", hidden: true }, "Older recordings");
  let next: string | undefined;
  let pending: AbortController | undefined;
  let live = false;
  let fold: Fold | undefined; // the last one, which older rows may go on
  let pictures = params.get("pics") === "1";
  const pics = h("button", { type: "button", class: "toggle", "aria-pressed": String(pictures), title: "the last screen of each" }, "Pictures");
  // A picture is asked for when its row comes into view.
  const inView = new IntersectionObserver((entries) => {
    for (const e of entries) {
      if (!e.isIntersecting) continue;
      inView.unobserve(e.target);
      const row = e.target as HTMLElement;
      api.screen(row.dataset.id!).then((s) => picture(row, s), () => {});
    }
  }, { rootMargin: "200px" });

  async function load(older: boolean) {
    pending?.abort();
    const mineToo = (pending = new AbortController());
    const page = await api.list({ text, own, before: older ? next : undefined }, mineToo.signal);
    if (mineToo.signal.aborted) return;
    document.getElementById("viewer")!.textContent = page.viewer.who;
    if (!older) {
      replace(rows);
      live = false;
    }
    if (!older) fold = undefined;
    for (const r of page.recordings) {
      const tr = row(r);
      fold = fold?.takes(r) ? fold : new Fold(r);
      fold.add(rows, tr, r);
      if (pictures) inView.observe(tr);
      live ||= r.live;
    }
    next = page.next;
    more.hidden = !next;
    table.hidden = rows.childElementCount === 0;
    note.textContent = rows.childElementCount > 0 ? "" :
      text ? "Nothing matches. Every word must occur in the person, host, local user, command or id; what was on the screens is under Search." :
      own ? "Nothing of yours has been recorded." : "There is nothing here that you may see yet.";
  }

  function refilter() {
    const p = new URLSearchParams();
    if (text) p.set("q", text);
    if (own) p.set("own", "1");
    if (pictures) p.set("pics", "1");
    history.replaceState(null, "", p.size ? `${api.base}/?${p}` : `${api.base}/`);
    mine.setAttribute("aria-pressed", String(own));
    all.setAttribute("aria-pressed", String(!own));
    run(load(false));
  }

  function run(work: Promise<void>) {
    work.catch((err) => {
      if (err?.name !== "AbortError") note.textContent = err instanceof Error ? err.message : String(err);
    });
  }

  let typing = 0;
  box.addEventListener("input", () => {
    clearTimeout(typing);
    typing = window.setTimeout(() => {
      text = box.value.trim();
      refilter();
    }, 150);
  });
  mine.addEventListener("click", () => { own = true; refilter(); });
  all.addEventListener("click", () => { own = false; refilter(); });
  more.addEventListener("click", () => run(load(true)));
  pics.addEventListener("click", () => {
    pictures = !pictures;
    pics.setAttribute("aria-pressed", String(pictures));
    refilter();
  });
  // Arrows go from row to row.
  rows.addEventListener("keydown", (e) => {
    const by = e.key === "ArrowDown" ? 1 : e.key === "ArrowUp" ? -1 : 0;
    if (!by || e.ctrlKey || e.metaKey || e.altKey) return;
    const all = [...rows.querySelectorAll<HTMLElement>("tr:not([hidden]) td:first-child a, .fold button")];
    const to = all[all.indexOf(document.activeElement as HTMLElement) + by];
    if (!to) return;
    e.preventDefault();
    to.focus();
  });
  document.addEventListener("keydown", (e) => {
    if (e.key === "/" && document.activeElement !== box) {
      e.preventDefault();
      box.focus();
    }
  });

  await load(false);
  document.title = "Recordings";
  replace(main, h("section", { class: "listing" }, h("h1", { class: "unseen" }, "Recordings"),
    h("div", { class: "tools" }, box, h("div", { class: "switch", role: "group", "aria-label": "whose" }, all, mine), pics),
    table, note, more));
  window.setInterval(() => {
    // Only the first page is refreshed: reading further down must not be disturbed.
    if (live && !document.hidden && !text && rows.childElementCount <= 100) run(load(false));
  }, REFRESH);
}

// Fold gathers neighbours that no person typed at: commands and copies of one person from one machine, which a playbook
// makes by the hundred. More than three of them are one line until it is opened.
class Fold {
  private rows: HTMLElement[] = [];
  private head: HTMLElement | undefined;
  private open = false;
  private hosts = new Set<string>();
  private as = new Set<string>();
  private failed = 0;

  constructor(private first: api.Summary) {}

  takes(r: api.Summary): boolean {
    const f = this.first;
    const still = (x: api.Summary) => !x.pty && !x.live && x.type !== "";
    return still(f) && still(r) && r.who === f.who && r.src === f.src;
  }

  add(body: HTMLElement, tr: HTMLElement, r: api.Summary): void {
    this.rows.push(tr);
    this.hosts.add(r.host);
    this.as.add(r.local_user);
    if (r.exit && (r.exit.status !== 0 || r.exit.signal)) this.failed++;
    body.append(tr);
    if (this.rows.length > 3) this.draw();
  }

  private draw(): void {
    const f = this.first;
    const where = this.as.size === 1 && this.hosts.size === 1 ? ` as ${f.local_user} on ${f.host}` : this.hosts.size === 1 ? ` on ${f.host}` : ` on ${this.hosts.size} hosts`;
    const failed = this.failed > 0 ? h("span", { class: "badge bad" }, `${this.failed} failed`) : null;
    const button = h("button", { type: "button", "aria-expanded": String(this.open), on: { click: () => { this.open = !this.open; this.draw(); } } },
      `${this.rows.length} commands and copies of ${f.who || f.src}${where}`);
    const focused = this.head?.contains(document.activeElement);
    const head = h("tr", { class: "fold" }, h("td", { colspan: "6" }, button, " ", failed));
    if (this.head) this.head.replaceWith(head);
    else this.rows[0].before(head);
    this.head = head;
    for (const r of this.rows) r.hidden = !this.open;
    if (focused) button.focus();
  }
}

function picture(row: HTMLElement, s: api.LastScreen): void {
  if (s.lines.length === 0) return;
  const tall = Math.max(0, s.lines.length - 12);
  row.querySelector(".what")?.append(h("pre", { class: "thumb", "aria-label": "last screen" }, s.lines.slice(tall).map((l) => l.slice(0, 100)).join("\n")));
}

function row(r: api.Summary): HTMLElement {
  const href = `${api.base}/r/${encodeURIComponent(r.id)}`;
  const what = r.type === "exec" ? h("code", { title: r.command }, r.command || (r.sealed ? "a command (sealed)" : "a command")) :
    h("span", { class: "kind" }, r.type === "shell" ? "shell" : r.type === "sftp" ? "files" : "nothing");
  const tr = h("tr", { "data-id": r.id },
    h("td", { class: "who" }, h("a", { href }, r.who || r.src), r.src ? h("small", null, `from ${r.src}`) : null),
    h("td", { class: "where" }, h("span", { class: "as" }, r.local_user), h("span", { class: "at" }, "@"), h("span", { class: "host" }, r.host)),
    h("td", { class: "what" }, what, r.channels > 1 ? h("small", null, `and ${r.channels - 1} more`) : null),
    h("td", { class: "when" }, h("time", { datetime: r.start, title: new Date(r.start).toLocaleString() }, when(r.start))),
    h("td", { class: "long" }, length(r.duration), h("small", null, size(r.size))),
    h("td", { class: "end" }, ending(r), r.sealed ? h("small", { class: "sealed", title: "encrypted to its recipients" }, "sealed") : null));
  // The link is what keyboards and screen readers use; a click anywhere in the row follows it.
  tr.addEventListener("click", (e) => {
    if (e.target instanceof HTMLElement && e.target.closest("a")) return;
    if (getSelection()?.toString()) return;
    location.href = href;
  });
  return tr;
}

export function ending(r: api.Summary): HTMLElement {
  const b = (cls: string, text: string, title?: string) => h("span", { class: `badge ${cls}`, title }, text);
  if (r.live) return b("live", "live", "still running");
  if (!r.complete) return b("lost", "cut off", "the recording stops without an end");
  if (r.cause && r.cause !== "closed") return b("bad", r.cause, "the connection was ended");
  if (r.exit?.signal) return b("bad", `SIG${r.exit.signal}`, "ended by a signal");
  if (r.exit) return b(r.exit.status === 0 ? "ok" : "bad", `exit ${r.exit.status}`);
  return b("ok", "closed");
}

