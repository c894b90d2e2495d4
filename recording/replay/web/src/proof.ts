// What a page says about whether a recording is genuine: it checks by itself, and says what that is worth.

import { add, h, replace } from "./dom";
import { clock, wall } from "./format";
import { hex } from "./bytes";
import { sha256 } from "./crypto";
import type { Tsr } from "./tsr";
import type { Report, Witness } from "./verify";

export interface Exported { exported: string; by: string }

export interface Panel {
  el: HTMLElement;
  say(cls: string, ...words: (Node | string)[]): void;
  show(r: Report): void;
}

export function proof(id: string, tsr: Tsr, x: Exported, told: string): HTMLElement {
  const sum = h("code", null, "not known here");
  const save = h("button", { type: "button", class: "more plainbutton" }, "Save the .tsr");
  save.addEventListener("click", () => {
    const a = h("a", { href: URL.createObjectURL(new Blob([tsr.file])), download: `${id}.tsr` });
    a.click();
  });
  const p = panel(
    h("p", null, "Whoever made or changed this page could have changed what it checks. Proof is the recording in it: save it and run ", h("code", null, `tssh verify --hub-key KEY ${id}.tsr`),
      " with the hub\u2019s key from a source that you trust. ", told),
    h("p", null, `Exported ${x.exported} for ${x.by}. SHA-256 of the .tsr: `, sum, " ", save));
  p.say("checking", "Checking its signatures\u2026");
  void sha256(tsr.file).then((d) => (sum.textContent = hex(d)));
  tsr.verify().then((r) => p.show(r), (err) => {
    p.say("lost", `Not checked: ${err instanceof Error ? err.message : err}. Save the .tsr and run tssh verify.`);
  });
  return p.el;
}

// panel is a verdict, and under it what was found and about.
export function panel(...about: HTMLElement[]): Panel {
  const line = h("span", { class: "verdict", role: "status" });
  const rest = h("div", { class: "findings" });
  const el = h("details", { class: "proof" }, h("summary", null, line), rest, ...about);

  function verdict(cls: string, ...words: (Node | string)[]) {
    el.className = `proof ${cls}`;
    replace(line, ...words);
  }

  function show(r: Report) {
    el.dataset.proven = String(r.proven);
    const whole = r.problems.length === 0 && r.complete;
    const running = r.problems.length === 1 && /is still being recorded|is being written/.test(r.problems[0]);
    if (whole) {
      verdict(r.begun.length > 0 ? "ok" : "lost", `Verified in this browser: whole, in order and signed to its end, ${clock(r.ends, true)}${r.begun.length > 0 ? "" : "; no hub countersigned its beginning"}.`);
    } else if (running) {
      verdict("lost", `Verified in this browser up to ${clock(r.proven, true)}; it has no end, and what comes after that is not signed.`);
    } else {
      verdict("bad", `Not as it was recorded: ${r.problems[0]}. Proven up to ${clock(r.proven, true)}.`);
      el.open = true;
    }
    replace(rest);
    if (r.problems.length > 0) add(rest, h("ul", null, ...r.problems.map((p) => h("li", null, p))));
    const said = (w: Witness) => h("li", null, `At ${utc(w.time)} the hub with the key `, h("code", null, w.key),
      w.until === undefined ? " signed that this recording had begun." : ` signed that it had all of it up to ${clock(w.until, true)}, which is ${wall(r.meta.start, w.until)} here.`);
    add(rest, h("p", null, "Signed while it was recorded, by keys that follow from ", h("code", null, String(r.meta.public_key ?? "")), ", which was made for it."));
    if (r.begun.length > 0) add(rest, h("ul", null, ...r.begun.map(said), ...r.seen.map(said)), compare([...r.begun, ...r.seen]));
    else add(rest, h("p", null, "No hub countersigned its beginning: it proves nothing against root of the host."));
    if (r.meta.self_attested === true) add(rest, h("p", null, "The host ran as the person recorded, who could have altered it before it left the host."));
  }
  return { el, say: verdict, show };
}

// compare lets a person hold the hub's key, as they know it, against the one that signed.
function compare(all: Witness[]): HTMLElement {
  const box = h("input", { type: "text", "aria-label": "the hub\u2019s key, as you know it", placeholder: "the hub\u2019s key, as tsshub status shows it", autocomplete: "off", spellcheck: "false" });
  const answer = h("span", { role: "status" });
  box.addEventListener("input", () => {
    const plain = (s: string) => s.trim().replace(/=+$/, "").replace(/-/g, "+").replace(/_/g, "/");
    const typed = plain(box.value);
    const fits = all.some((w) => plain(w.key) === typed);
    answer.textContent = typed === "" ? "" : fits ? "That is the key that signed." : "That key signed nothing here.";
    answer.className = typed === "" ? "" : fits ? "yes" : "no";
  });
  return h("p", { class: "compare" }, box, " ", answer);
}

const utc = (iso: string) => iso.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");
