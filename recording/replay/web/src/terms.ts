// Filters without typing: the usual ones as buttons, and all terms with what they mean.

import { h, replace } from "./dom";

const USUAL: [string, string][] = [
  ["is:live", "Running"],
  ["is:interactive", "In a terminal"],
  ["exit:!0", "Failed"],
  ["after:24h", "Last day"],
  ["after:168h", "Last week"],
  ["longer:10m", "Over 10 min"],
];

const ALL: [string, string][] = [
  ["who:", "part of the person, or a tag"],
  ["host:", "the host, or a tag of it"],
  ["as:", "the account on the host"],
  ["from:", "the machine, or its address"],
  ["tag:", "a tag of either side"],
  ["kind:", "shell, exec or sftp"],
  ["cmd:", "part of a command that was asked for"],
  ["path:", "part of the path of a file copied or changed by sftp or scp"],
  ["exit:", "a status, or exit:!0 for any but that"],
  ["after:", "a day (2026-11-26), or an age (36h, 7d)"],
  ["before:", "a day, or an age"],
  ["longer:", "a time (10m)"],
  ["is:", "is:live, is:interactive, is:unsealed"],
];

const wordsOf = (text: string) => text.split(/\s+/).filter((w) => w);

// filterBar changes a filter for its words; a term of a name that takes one value takes the place of the one before.
export function filterBar(change: (text: string) => void): { el: HTMLElement; set(text: string): void } {
  let text = "";
  const has = (term: string) => wordsOf(text).includes(term);
  const toggle = (term: string) => {
    const name = term.slice(0, term.indexOf(":") + 1);
    const rest = wordsOf(text).filter((w) => w !== term && (name === "is:" || !w.startsWith(name)));
    change((has(term) ? rest : [...rest, term]).join(" "));
  };
  const chips = USUAL.map(([term, label]) => h("button", { type: "button", class: "chip", title: term, "data-term": term, on: { click: () => toggle(term) } }, label));
  const dialog = h("dialog", { class: "help" }, h("h2", null, "Filter"),
    h("p", null, "Words must all occur in person, host, account, command or id. Terms look in one place; given twice, either fits."),
    h("dl", null, ...ALL.flatMap(([term, what]) => [h("dt", null, term), h("dd", null, what)])),
    h("form", { method: "dialog" }, h("button", null, "Close")));
  const all = h("button", { type: "button", class: "chip", title: "what can be filtered by", on: { click: () => dialog.showModal() } }, "More\u2026");
  const el = h("div", { class: "chips", role: "group", "aria-label": "filters" });
  replace(el, ...chips, all, dialog);
  return {
    el,
    set(t) {
      text = t;
      for (const c of chips) c.setAttribute("aria-pressed", String(has(c.dataset.term!)));
    },
  };
}
