// The entry of a page that was shared: one file, played without a network. What the API would
// answer is in the page.

import "@xterm/xterm/css/xterm.css";
import "./style.css";
import * as api from "./api";
import { h, replace } from "./dom";
import { clock } from "./format";
import { showPlayer } from "./player";

const main = document.getElementById("main")!;

async function start() {
  const packed = bytes(document.getElementById("data")!.textContent!);
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const all = JSON.parse(text);
  const refuse = () => { throw new api.Refusal(404, "This is not in the page."); };
  api.answerFrom((path) => {
    const [, rest, query] = /^\/api\/recordings\/[^/]+(?:\/([^?]*))?(?:\?(.*))?$/.exec(path) ?? refuse();
    const q = new URLSearchParams(query);
    if (!rest) return all.detail;
    if (rest.startsWith("frames/")) return all.frames[Number(rest.slice(7))] ?? refuse();
    if (rest === "transcript") return Number(q.get("from")) > 0 ? { ...all.transcript, lines: [] } : all.transcript;
    if (rest === "search") return find(all.transcript.lines, q.get("q") ?? "", q.get("re") === "1");
    return refuse();
  });
  await showPlayer(main, all.detail.id);
  main.prepend(proof(all.detail.id, all.proof));
}

function find(lines: api.TextLine[], q: string, regex: boolean) {
  let fits: (s: string) => boolean;
  if (regex) {
    let re: RegExp;
    try {
      re = new RegExp(q, "iu");
    } catch (err) {
      throw new api.Refusal(400, `This is not a regular expression: ${(err as Error).message}`);
    }
    fits = (s) => re.test(s);
  } else {
    const words = q.toLowerCase().split(/\s+/).filter((w) => w);
    fits = (s) => words.every((w) => s.toLowerCase().includes(w));
  }
  const found = lines.filter((l) => fits(l.text));
  return { lines: found.slice(0, 1000), more: found.length > 1000 };
}

function bytes(base64: string): Uint8Array<ArrayBuffer> {
  const s = atob(base64.trim());
  const b = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) b[i] = s.charCodeAt(i);
  return b;
}

function proof(id: string, p: any): HTMLElement {
  const save = h("button", { type: "button", class: "more plainbutton" }, "Save the .tsr");
  save.addEventListener("click", () => {
    const a = h("a", { href: URL.createObjectURL(new Blob([bytes(document.getElementById("tsr")!.textContent!)])), download: `${id}.tsr` });
    a.click();
  });
  const words = p.problems.length > 0 ? `The recorder found problems: ${p.problems.join("; ")}.` :
    p.complete ? "Whole, in order and signed to its end." : `Signed up to ${clock(p.proven_until)}; the recording has no end.`;
  const el = h("details", { class: p.problems.length > 0 ? "proof bad" : "proof" },
    h("summary", null, `Shared copy, exported ${p.exported} for ${p.by}. `, words),
    h("p", null, p.countersigned ? `Its beginning was countersigned at ${p.countersigned} by ${p.key}.` : "No hub countersigned its beginning: it proves nothing against root of the host.",
      p.self_attested ? " The host ran as the person recorded, who could have altered it before it left the host." : ""),
    h("p", null, "This is what the recorder said at that moment; a page can be changed. Proof is the signed recording inside: save it and run ", h("code", null, `tssh verify --hub-key KEY ${id}.tsr`), " with the hub\u2019s key from a source you trust."),
    h("p", null, "SHA-256 of the .tsr: ", h("code", null, p.sha256), " ", save));
  return el;
}

start().catch((err) => replace(main, h("p", { class: "state", role: "alert" }, `This page cannot be played: ${err instanceof Error ? err.message : err}`)));
