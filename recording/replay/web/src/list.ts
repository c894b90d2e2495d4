// The list: who was where, as whom, when, for how long, and how it ended.

import * as api from "./api";
import { h, replace } from "./dom";
import { endButton } from "./end";
import { length, size, when } from "./format";
import { filterBar } from "./terms";
import { keptThumb, thumb } from "./thumb";

const REFRESH = 5000; // ms, while something is live and the page is in view
const FIRST = 150; // rows of a first page: a hundred, and what runs

export async function showList(main: HTMLElement): Promise<void> {
  const params = new URLSearchParams(location.search);
  let text = params.get("q") ?? "";
  let own = params.get("own") === "1";

  const box = h("input", { type: "search", id: "filter", placeholder: "person, host, account, command\u2026", autocomplete: "off", spellcheck: "false", value: text, "aria-label": "filter recordings" });
  const all = h("button", { type: "button", "aria-pressed": String(!own) }, "All I may see");
  const mine = h("button", { type: "button", "aria-pressed": String(own) }, "Mine");
  const rows = h("tbody", null);
  const head = ["Who", "Where", "What", "When", "How long", "End"].map((s) => h("th", { scope: "col" }, s));
  const table = h("table", { class: "list" }, h("thead", null, h("tr", null, ...head)), rows);
  const note = h("div", { class: "note", role: "status" });
  const sealed = h("p", { class: "sealednote", role: "status", hidden: true });
  const unrecorded = h("div", { class: "unrecorded" });
  const more = h("button", { type: "button", class: "more", hidden: true }, "Older recordings");
  let next: string | undefined;
  let pending: AbortController | undefined;
  let live = false;
  let fold: Fold | undefined; // the last one, which older rows may go on
  let locked = false; // the recorder has no key for what is sealed: one answer will do
  let shown = ""; // what the rows were made of
  const unfolded = new Set<string>(); // recordings in folds that are open
  const bar = filterBar((t) => {
    box.value = text = t;
    refilter();
  });
  let pictures = params.get("pics") === "1";
  const pics = h("button", { type: "button", class: "toggle", "aria-pressed": String(pictures), title: "the last screen of each" }, "Pictures");
  // A picture is asked for when its row comes into view.
  const inView = new IntersectionObserver((entries) => {
    for (const e of entries) {
      if (!e.isIntersecting) continue;
      inView.unobserve(e.target);
      const row = e.target as HTMLElement;
      const { id, size } = row.dataset;
      if (locked && row.dataset.sealed) continue;
      api.screen(id!).then((s) => show(row, thumb(id!, Number(size), s)), (err) => {
        locked ||= err instanceof api.Refusal && err.status === 423;
      });
    }
  }, { rootMargin: "200px" });

  async function load(older: boolean) {
    pending?.abort();
    const mineToo = (pending = new AbortController());
    const page = await api.list({ text, own, before: older ? next : undefined }, mineToo.signal);
    if (mineToo.signal.aborted) return;
    document.getElementById("viewer")!.textContent = page.viewer.who;
    // The page refreshes itself: what is the same is left alone, and who reads or stands on a row goes on.
    const now = older ? "" : JSON.stringify([page, pictures]);
    if (now && now === shown) return;
    shown = now;
    const on = (document.activeElement?.closest("tr[data-id], tr[data-first]") as HTMLElement | null)?.dataset;
    if (!older) {
      replace(rows);
      live = false;
      fold = undefined;
    }
    for (const r of page.recordings) {
      const tr = row(r);
      fold = fold?.takes(r) ? fold : new Fold(r, unfolded);
      fold.add(rows, tr, r);
      if (pictures) {
        const had = keptThumb(r.id, r.size);
        if (had) show(tr, had);
        else if (r.pty) inView.observe(tr);
      }
      live ||= r.live;
    }
    if (!older) {
      // A question that is being answered is not taken away.
      if (!unrecorded.querySelector("dialog[open]")) replace(unrecorded, ...unrecordedRows(page.unrecorded ?? [], () => run(load(false))));
      live ||= (page.unrecorded ?? []).length > 0;
    }
    if (on) rows.querySelector<HTMLElement>(on.id ? `tr[data-id="${CSS.escape(on.id)}"] a` : `tr[data-first="${CSS.escape(on.first!)}"] button`)?.focus({ preventScroll: true });
    next = page.next;
    more.hidden = !next;
    table.hidden = rows.childElementCount === 0;
    sealed.hidden = !page.sealed;
    sealed.textContent = page.sealed ? `${page.sealed === 1 ? "1 sealed recording was" : `${page.sealed} sealed recordings were`} not looked into: commands and files of those are readable with a key only.` : "";
    if (rows.childElementCount > 0) replace(note);
    else if (text) replace(note, h("p", null, "Nothing matches."), h("p", { class: "hint" }, "Every word must occur in the person, host, local user, command or id. ", h("a", { href: `${api.base}/search?q=${encodeURIComponent(text)}` }, "Look for it on the screens"), " instead."));
    else if (own) replace(note, h("p", null, "Nothing of yours has been recorded."), h("p", { class: "hint" }, "What you do with ", h("code", null, "tssh HOST"), " is here from its first second on."));
    else replace(note, h("p", null, "There is nothing here that you may see yet."), h("p", { class: "hint" }, "Sessions are listed as soon as they begin: try ", h("code", null, "tssh HOST"), ". Your own you may always see; whose else is in the policy."));
  }

  function refilter() {
    const p = new URLSearchParams();
    if (text) p.set("q", text);
    if (own) p.set("own", "1");
    if (pictures) p.set("pics", "1");
    history.replaceState(null, "", p.size ? `${api.base}/?${p}` : `${api.base}/`);
    mine.setAttribute("aria-pressed", String(own));
    all.setAttribute("aria-pressed", String(!own));
    bar.set(text);
    run(load(false));
  }

  function run(work: Promise<void>) {
    work.catch((err) => {
      if (err?.name === "AbortError") return;
      shown = ""; // whatever comes next is shown
      replace(note, h("p", null, err instanceof Error ? err.message : String(err)));
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

  bar.set(text);
  await load(false);
  document.title = "Recordings";
  replace(main, h("section", { class: "listing" }, h("h1", { class: "unseen" }, "Recordings"),
    h("div", { class: "tools" }, box, h("div", { class: "switch", role: "group", "aria-label": "whose" }, all, mine), pics),
    bar.el, unrecorded, table, note, sealed, more));
  window.setInterval(() => {
    // Only the first page is refreshed: reading further down must not be disturbed.
    if (live && !document.hidden && rows.querySelectorAll("[data-id]").length <= FIRST) run(load(false));
  }, REFRESH);
}

// unrecordedRows are the sessions that run and are not recorded: that they are there, and the way to end them.
function unrecordedRows(list: api.Unrecorded[], ended: () => void): Node[] {
  if (list.length === 0) return [];
  return [h("h2", null, "Running and not recorded"), h("ul", null, ...list.map((u) => {
    const end = endButton(() => u, ended);
    end.button.hidden = !u.may_end;
    return h("li", { "data-id": u.id }, h("b", null, u.who || u.src), h("span", { class: "dim" }, " as "), u.local_user, h("span", { class: "dim" }, " on "), u.host,
      h("span", { class: "dim" }, " since "), h("time", { datetime: u.start, title: new Date(u.start).toLocaleString() }, when(u.start)),
      u.why ? h("small", null, u.why) : null, end.button, end.dialog);
  }))];
}

// Fold gathers neighbours that no person typed at: commands and copies of one person from one machine, which a playbook
// makes by the hundred. More than three of them are one line until it is opened.
class Fold {
  private rows: HTMLElement[] = [];
  private head: HTMLElement | undefined;
  private hosts = new Set<string>();
  private as = new Set<string>();
  private failed = 0;

  constructor(private first: api.Summary, private unfolded: Set<string>) {}

  private get open(): boolean {
    return this.rows.some((r) => this.unfolded.has(r.dataset.id!));
  }

  private toggle(): void {
    if (this.open) for (const r of this.rows) this.unfolded.delete(r.dataset.id!);
    else for (const r of this.rows) this.unfolded.add(r.dataset.id!);
    this.draw();
  }

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
    const button = h("button", { type: "button", "aria-expanded": String(this.open), on: { click: () => this.toggle() } },
      `${this.rows.length} commands and copies of ${f.who || f.src}${where}`);
    const focused = this.head?.contains(document.activeElement);
    const head = h("tr", { class: "fold", "data-first": f.id }, h("td", { colspan: "6" }, button, " ", failed));
    if (this.head) this.head.replaceWith(head);
    else this.rows[0].before(head);
    this.head = head;
    for (const r of this.rows) r.hidden = !this.open;
    if (focused) button.focus();
  }
}

function show(row: HTMLElement, picture: HTMLElement | undefined): void {
  if (picture) row.querySelector(".what")?.append(picture);
}

function row(r: api.Summary): HTMLElement {
  const href = `${api.base}/r/${encodeURIComponent(r.id)}`;
  const what = r.type === "exec" ? h("code", { title: r.command }, r.command || (r.sealed ? "a command (sealed)" : "a command")) :
    h("span", { class: "kind" }, r.type === "shell" ? "shell" : r.type === "sftp" ? "files" : "nothing");
  const tr = h("tr", { "data-id": r.id, "data-size": r.size, "data-sealed": r.sealed },
    h("td", { class: "who" }, h("a", { href }, r.who || r.src), r.src ? h("small", null, `from ${r.src}`) : null),
    h("td", { class: "where" }, h("span", { class: "as" }, r.local_user), h("span", { class: "at" }, "@"), h("span", { class: "host" }, r.host)),
    h("td", { class: "what" }, what, r.channels > 1 ? h("small", null, `and ${r.channels - 1} more`) : null),
    h("td", { class: "when" }, h("time", { datetime: r.start, title: new Date(r.start).toLocaleString() }, when(r.start))),
    h("td", { class: "long" }, length(r.duration), h("small", null, size(r.size))),
    h("td", { class: "end" }, ending(r), r.sealed ? h("small", { class: "sealed", title: "encrypted to its recipients" }, "sealed") : null,
      r.unsealed ? h("small", { class: "unsealed", title: "this recording is " + r.unsealed }, r.sealed ? "sealed to others" : "not sealed") : null));
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

