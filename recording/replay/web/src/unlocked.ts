// What is beside the player of a sealed recording that this page opened: how far it was read, and whether it is genuine.

import * as api from "./api";
import { h } from "./dom";
import { size } from "./format";
import { claims, type Opened } from "./opened";
import { panel } from "./proof";
import type { Report } from "./verify";

export interface Beside {
  el: HTMLElement;
  amend(d: api.Detail): api.Detail; // takes names from what is signed, and commands from what was read
}

// beside makes the page answer for this recording with what o opens. changed is called when more is known of it.
export function beside(id: string, o: Opened, proofs: boolean, changed: (reload: boolean) => void): Beside {
  const at = `/api/recordings/${encodeURIComponent(id)}/`;
  let commands = new Map<number, string>();
  api.openedHere((path) => {
    if (!path.startsWith(at)) return undefined;
    const [, rest, query] = /^([^?]*)(?:\?(.*))?$/.exec(path.slice(at.length))!;
    if (rest.startsWith("frames/")) return o.frame(Number(rest.slice(7)));
    return rest === "transcript" || rest === "search" ? o.answer(rest, new URLSearchParams(query)) : undefined;
  });
  const button = h("button", { type: "button", class: "more plainbutton", hidden: o.waits === undefined }, `Read all of it (${size(o.waits ?? 0)})`);
  const p = panel(h("p", null, "Opened in this page with your key, which stays here. ", o.partly ? "Parts of it are sealed to others, and do not open with this key. " : "",
    "The page reads the whole recording once, to verify it and for its text, commands and marks. What you look for in it stays here too."));
  if (o.waits !== undefined) p.say("lost", "Not verified yet, and without its text: it is large, and is read whole when you ask for it. ", button);
  else p.say("checking", "Reading and checking it\u2026");
  o.onprogress = (n) => p.say("checking", `Reading and checking it: ${size(n)} so far`);
  o.onread = (r: { report: Report; commands: Map<number, string> }) => {
    commands = r.commands;
    if (proofs) p.show(r.report);
    else p.say("ok", "Opened and read in this browser.");
    changed(false);
  };
  button.addEventListener("click", (e) => {
    e.preventDefault(); // it is in a summary
    o.want();
    changed(true);
  });
  return {
    el: p.el,
    amend: (d) => ({ ...d, ...claims(o.meta), locked: false, channel_list: d.channel_list.map((c) => ({ ...c, command: commands.get(c.n) || c.command })) }),
  };
}
