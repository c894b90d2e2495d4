// The entry of a page that was shared: one file, played without a network. The recording itself is in the
// page; what is played is decoded from it here, and its signatures are checked here. Text, commands and the
// channels are what the recorder read in it.

import "@xterm/xterm/css/xterm.css";
import "./style.css";
import * as api from "./api";
import { h, replace } from "./dom";
import { revive, visible } from "./format";
import { showPlayer } from "./player";
import { bounded } from "./expression";
import { proof } from "./proof";
import { base64, Tsr } from "./tsr";

const main = document.getElementById("main")!;

async function start() {
  const packed = base64(document.getElementById("data")!.textContent!);
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const all = JSON.parse(text, revive);
  const file = base64(document.getElementById("tsr")!.textContent!);
  const tsr = new Tsr(file);
  const detail: api.Detail = { ...all.detail, ...claims(tsr), frames: tsr.index };
  const last = detail.frames[detail.frames.length - 1];
  detail.duration = Math.max(last?.last ?? 0, 0);
  // Of one that is sealed the recorder opened the frames.
  const frame = (n: number) => (tsr.sealed ? api.toFrame(n, all.frames?.[n] ?? refuse()) : tsr.frame(n));
  const refuse = () => { throw new api.Refusal(404, "This is not in the page."); };
  api.answerFrom((path) => {
    const [, rest, query] = /^\/api\/recordings\/[^/]+(?:\/([^?]*))?(?:\?(.*))?$/.exec(path) ?? refuse();
    const q = new URLSearchParams(query);
    if (!rest) return detail;
    if (rest.startsWith("frames/")) return frame(Number(rest.slice(7)));
    if (rest === "transcript") return Number(q.get("from")) > 0 ? { ...all.transcript, lines: [] } : all.transcript;
    if (rest === "search") return find(all.transcript.lines, q.get("q") ?? "", q.get("re") === "1");
    return refuse();
  });
  const check = proof(detail.id, tsr, file, all.proof);
  await showPlayer(main, detail.id);
  main.prepend(check);
}

// claims are what the signed description says, whatever else is in the page.
function claims(tsr: Tsr): Partial<api.Detail> {
  const m = tsr.meta;
  const s = (x: unknown) => (typeof x === "string" ? visible(x) : "");
  return {
    id: s(m.id), start: s(m.start), host: s(m.host), src: s(m.src), who: s(m.login) || (Array.isArray(m.src_tags) ? m.src_tags.map(s).join(" ") : ""),
    local_user: s(m.local_user), uid: Number(m.uid) || 0, rule: s(m.rule), client: s(m.client), mesh: s(m.mesh), src_addr: s(m.src_addr),
    self_attested: m.self_attested === true, live: false,
  };
}

async function find(lines: api.TextLine[], q: string, regex: boolean) {
  let found: api.TextLine[];
  if (regex) {
    found = (await bounded(q, lines.map((l) => l.text))).map((i) => lines[i]);
  } else {
    const words = q.toLowerCase().split(/\s+/).filter((w) => w);
    found = lines.filter((l) => words.every((w) => l.text.toLowerCase().includes(w)));
  }
  return { lines: found.slice(0, 1000), more: found.length > 1000 };
}

start().catch((err) => replace(main, h("p", { class: "state", role: "alert" }, `This page cannot be played: ${err instanceof Error ? err.message : err}`)));
