// What is shown of a recording that is sealed and that the recorder cannot open.

import * as api from "./api";
import { h, replace } from "./dom";
import { clock, size, when } from "./format";
import { ending } from "./list";

export function showLocked(main: HTMLElement, d: api.Detail): void {
  document.title = `${d.who || d.src} as ${d.local_user} on ${d.host}`;
  const file = `${api.base}/api/recordings/${encodeURIComponent(d.id)}/file`;
  replace(main, h("section", { class: "player locked" },
    h("div", { class: "title" },
      h("h1", null, h("span", { class: "who" }, d.who || d.src), h("span", { class: "dim" }, " as "), d.local_user, h("span", { class: "dim" }, " on "), d.host),
      ending(d),
      h("span", { class: "dim when" }, `${when(d.start)} \u00b7 ${clock(d.duration)} \u00b7 ${size(d.size)}`)),
    h("p", { class: "banner", role: "status" }, "This recording is sealed, and this recorder has no key that opens it."),
    h("p", null, "It opens with the key of any of:"),
    h("ul", null, ...(d.sealed_to ?? []).map((to) => h("li", null, h("code", null, to)))),
    h("p", null, h("a", { href: file, download: `${d.id}.tsr` }, "Save the recording"), " and play it where the key is:"),
    h("pre", { class: "command" }, `tssh play --identity KEYFILE ${d.id}.tsr`),
    h("table", null,
      h("thead", null, h("tr", null, ...["Channel", "What", "From", "To", "End"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", null, ...d.channel_list.map((c) => h("tr", null,
        h("td", null, String(c.n)), h("td", null, c.type + (c.pty ? " with a terminal" : "")), h("td", null, clock(c.opened)),
        h("td", null, c.closed ? clock(c.closed) : ""),
        h("td", null, c.exit ? (c.exit.signal ? `SIG${c.exit.signal}` : `exit ${c.exit.status}`) : "")))))));
}
