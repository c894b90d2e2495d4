// A session that runs, of which the person is shown who watches: nothing of it is asked for before one has said so.

import * as api from "./api";
import { h, replace } from "./dom";
import { endButton } from "./end";
import { when } from "./format";
import { ending } from "./list";

export function askToWatch(main: HTMLElement, d: api.Detail, watch: () => Promise<void>): void {
  document.title = `${d.who || d.src} as ${d.local_user} on ${d.host}`;
  const viewer = document.getElementById("viewer");
  if (viewer) viewer.textContent = d.viewer.who;
  const stop = endButton(() => d, () => location.reload());
  stop.button.hidden = !d.may_end;
  const said = h("p", { class: "banner bad", role: "alert", hidden: true });
  const go = h("button", { type: "button", class: "watchit" }, "Watch");
  go.addEventListener("click", () => {
    go.disabled = true;
    watch().catch((err) => {
      said.textContent = err instanceof Error ? err.message : String(err);
      said.hidden = false;
      go.disabled = false;
    });
  });
  const others = (d.watchers ?? []).map((w) => (w.node ? `${w.who} (${w.node})` : w.who));
  replace(main, h("section", { class: "player ask" },
    h("div", { class: "title" },
      h("h1", null, h("span", { class: "who" }, d.who || d.src), h("span", { class: "dim" }, " as "), d.local_user, h("span", { class: "dim" }, " on "), d.host),
      ending(d),
      h("span", { class: "dim when" }, when(d.start))),
    d.command ? h("p", { class: "command" }, d.command) : null,
    h("p", { class: "banner", role: "status" }, "This session runs, and its rule has the person told who watches. You do not watch it yet."),
    h("p", null, others.length > 0 ? `It is watched by ${others.join(", ")}.` : "Nobody watches it now."),
    said, h("p", { class: "buttons" }, go, stop.button), stop.dialog));
  go.focus();
}
