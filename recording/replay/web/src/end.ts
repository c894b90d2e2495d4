// Ending a session that runs: a button, and a question for the words that the person reads.

import * as api from "./api";
import { h, replace } from "./dom";

export function endButton(d: () => api.Detail): { button: HTMLButtonElement; dialog: HTMLDialogElement } {
  const reason = h("input", { type: "text", name: "reason", required: true, maxlength: 100, autocomplete: "off", "aria-label": "reason" });
  const said = h("p", { class: "banner bad", role: "alert", hidden: true });
  const ask = h("p", null);
  const go = h("button", { type: "submit", class: "danger" }, "End session");
  const form = h("form", null, reason, h("p", { class: "buttons" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), go));
  const dialog = h("dialog", { class: "endsession" }, h("h2", null, "End this session"), ask, form, said);
  const button = h("button", { type: "button", class: "toggle danger endsession", title: "end this session", hidden: !d().may_end }, "End\u2026");
  button.addEventListener("click", () => {
    said.hidden = true;
    replace(ask, `${d().who || d().src} is disconnected from ${d().host}, and reads why:`);
    dialog.showModal();
    reason.focus();
  });
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    go.disabled = true;
    api.endSession(d().id, reason.value).then(
      () => dialog.close(),
      (err) => {
        said.textContent = err instanceof Error ? err.message : String(err);
        said.hidden = false;
      },
    ).finally(() => (go.disabled = false));
  });
  return { button, dialog };
}
