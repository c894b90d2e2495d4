// What is shown of a recording that is sealed and that the recorder cannot open: who may, and a place for the key. The
// key goes from that place into memory and nowhere else; the place is emptied as soon as it fits.

import * as api from "./api";
import { add, h, replace } from "./dom";
import { clock, size, when } from "./format";
import { ending } from "./list";
import type { Opened, Source } from "./opened";

const LARGEST_KEY = 64 << 10; // bytes of a file with one

export function showLocked(main: HTMLElement, d: api.Detail, src: Source, open: (o: Opened) => Promise<void>): void {
  document.title = `${d.who || d.src} as ${d.local_user} on ${d.host}`;
  const file = `${api.base}/api/recordings/${encodeURIComponent(d.id)}/file`;
  // No form, no name and no password field: nothing that a browser would offer to keep.
  const text = h("textarea", { class: "key", rows: "3", autocomplete: "off", autocapitalize: "off", autocorrect: "off", spellcheck: "false", "aria-label": "identity", placeholder: "AGE-SECRET-KEY-1\u2026", "aria-describedby": "keynote" });
  const choose = h("input", { type: "file", class: "offscreen", tabindex: "-1", "aria-hidden": "true" });
  const pick = h("button", { type: "button", class: "more plainbutton" }, "Choose a key file\u2026");
  const go = h("button", { type: "button", class: "more plainbutton go" }, "Open");
  const note = h("p", { class: "keysays", role: "status" });
  let asked = 0;

  async function attempt(): Promise<void> {
    const mine = ++asked;
    note.classList.remove("bad");
    note.textContent = "Opening\u2026";
    go.disabled = pick.disabled = true;
    try {
      const { Opened } = await import("./opened"); // what it takes for this is large, and most pages need none of it
      const o = await Opened.with(text.value, src, d.id);
      if (mine !== asked) return;
      text.value = "";
      await open(o);
    } catch (err) {
      if (mine !== asked) return;
      note.classList.add("bad");
      note.textContent = err instanceof Error ? err.message : String(err);
      text.focus();
      text.select();
    } finally {
      go.disabled = pick.disabled = false;
    }
  }

  go.addEventListener("click", () => void attempt());
  text.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.shiftKey || text.value.includes("-----BEGIN")) return;
    e.preventDefault();
    void attempt();
  });
  pick.addEventListener("click", () => choose.click());
  choose.addEventListener("change", () => {
    const f = choose.files?.[0];
    choose.value = "";
    if (!f) return;
    if (f.size > LARGEST_KEY) {
      note.classList.add("bad");
      note.textContent = "This file is too large for a key.";
      return;
    }
    void f.text().then((t) => {
      text.value = t;
      return attempt();
    });
  });

  const page = h("section", { class: "player locked" },
    h("div", { class: "title" },
      h("h1", null, h("span", { class: "who" }, d.who || d.src), h("span", { class: "dim" }, " as "), d.local_user, h("span", { class: "dim" }, " on "), d.host),
      ending(d),
      h("span", { class: "dim when" }, `${when(d.start)} \u00b7 ${clock(d.duration)} \u00b7 ${size(d.size)}`)),
    h("p", { class: "banner", role: "status" }, api.isOffline() ? "This recording is sealed." : "This recording is sealed, and this recorder has no key that opens it."),
    h("div", { class: "unlock" },
      h("h2", null, "Open it here"),
      h("p", { id: "keynote" }, "With an age identity or an ssh-ed25519 private key. It stays in this page\u2019s memory: it is not sent, not stored, and gone when the page is closed."),
      text, h("p", { class: "keybuttons" }, go, " ", pick, choose), note),
    h("p", null, "It opens with the key of any of:"),
    h("ul", null, ...(d.sealed_to ?? []).map((to) => h("li", null, h("code", null, to)))));
  if (!api.isOffline()) {
    add(page,
      h("p", null, h("a", { href: file, download: `${d.id}.tsr` }, "Save the recording"), " and play it where the key is, or give it away ",
        h("a", { href: `${api.base}/api/recordings/${encodeURIComponent(d.id)}/html`, download: `${d.id}.html` }, "as a page"), " that asks for the key:"),
      h("pre", { class: "command" }, `tssh play --identity KEYFILE ${d.id}.tsr`));
  }
  add(page, h("table", null,
    h("thead", null, h("tr", null, ...["Channel", "What", "From", "To", "End"].map((t) => h("th", { scope: "col" }, t)))),
    h("tbody", null, ...d.channel_list.map((c) => h("tr", null,
      h("td", null, String(c.n)), h("td", null, c.type + (c.pty ? " with a terminal" : "")), h("td", null, clock(c.opened)),
      h("td", null, c.closed ? clock(c.closed) : ""),
      h("td", null, c.exit ? (c.exit.signal ? `SIG${c.exit.signal}` : `exit ${c.exit.status}`) : ""))))));
  replace(main, page);
}
