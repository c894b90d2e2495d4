// Ending a session that runs, and deleting a recording: a button, and a question for the reason.

import * as api from "./api";
import { h, replace } from "./dom";

interface Act {
  what: "end" | "delete";
  label: string;
  title: string;
  heading: string;
  go: string;
  about: () => string; // what will happen, before the reason is asked for
  done?: () => void;
}

// Ended is what is asked of a session here, recorded or not.
export type Ended = Pick<api.Detail, "id" | "who" | "src" | "host" | "may_end" | "may_delete">;

export interface ActButton { button: HTMLButtonElement; dialog: HTMLDialogElement }

export function endButton(d: () => Ended, done?: () => void): ActButton {
  return actButton(d, {
    what: "end", label: "End\u2026", title: "end this session", heading: "End this session", go: "End session",
    about: () => `${d().who || d().src} is disconnected from ${d().host}, and reads why:`,
    done,
  });
}

export function deleteButton(d: () => api.Detail): ActButton {
  return actButton(d, {
    what: "delete", label: "Delete\u2026", title: "delete this recording", heading: "Delete this recording", go: "Delete for good",
    about: () => `The recording of ${d().who || d().src} on ${d().host} is removed for good. A signed note stays, with your name and why:`,
    done: () => location.assign(`${api.base}/`),
  });
}

function actButton(d: () => Ended, a: Act): ActButton {
  const reason = h("input", { type: "text", name: "reason", required: true, maxlength: 100, autocomplete: "off", "aria-label": "reason" });
  const said = h("p", { class: "banner bad", role: "alert", hidden: true });
  const ask = h("p", null);
  const go = h("button", { type: "submit", class: "danger" }, a.go);
  const form = h("form", null, reason, h("p", { class: "buttons" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), go));
  const dialog = h("dialog", { class: "endsession" }, h("h2", null, a.heading), ask, form, said);
  const button = h("button", { type: "button", class: `toggle danger ${a.what}session`, title: a.title, hidden: true }, a.label);
  button.addEventListener("click", () => {
    said.hidden = true;
    replace(ask, a.about());
    dialog.showModal();
    reason.focus();
  });
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    go.disabled = true;
    api.act(a.what, d().id, reason.value).then(
      () => {
        dialog.close();
        a.done?.();
      },
      (err) => {
        said.textContent = err instanceof Error ? err.message : String(err);
        said.hidden = false;
      },
    ).finally(() => (go.disabled = false));
  });
  return { button, dialog };
}
