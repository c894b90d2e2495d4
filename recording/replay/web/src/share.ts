// The entry of a page that was shared: one file, played without a network. The recording itself is in the
// page; what is played is decoded from it here, and its signatures are checked here. Text, commands and the
// channels are what the recorder read in it; where it is sealed and the recorder had no key the page asks for one.

import "@xterm/xterm/css/xterm.css";
import "./style.css";
import "./unlock.css";
import * as api from "./api";
import { h, replace } from "./dom";
import { revive } from "./format";
import { showPlayer } from "./player";
import { base64 } from "./bytes";
import { claims, find, type Source } from "./opened";
import { proof } from "./proof";
import { Tsr } from "./tsr";

const main = document.getElementById("main")!;

async function start() {
  const packed = base64(document.getElementById("data")!.textContent!);
  const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const all = JSON.parse(text, revive);
  const file = base64(document.getElementById("tsr")!.textContent!);
  const tsr = new Tsr(file);
  const detail: api.Detail = { ...all.detail, ...claims(tsr.meta), live: false, frames: tsr.index };
  detail.locked &&= tsr.sealed;
  const last = detail.frames[detail.frames.length - 1];
  detail.duration = Math.max(last?.last ?? 0, 0);
  // Of one that is sealed the recorder opened the frames, or left that to who has the key.
  const frame = (n: number) => (tsr.sealed ? api.toFrame(n, all.frames?.[n] ?? refuse()) : tsr.frame(n));
  const refuse = () => { throw new api.Refusal(404, "This is not in the page."); };
  api.answerFrom((path) => {
    const [, rest, query] = /^\/api\/recordings\/[^/]+(?:\/([^?]*))?(?:\?(.*))?$/.exec(path) ?? refuse();
    const q = new URLSearchParams(query);
    if (!rest) return detail;
    if (rest.startsWith("frames/")) return frame(Number(rest.slice(7)));
    if (rest === "transcript") return Number(q.get("from")) > 0 ? { ...all.transcript, lines: [] } : all.transcript;
    if (rest === "search") return find(all.transcript, q.get("q") ?? "", q.get("re") === "1");
    return refuse();
  });
  const told = detail.locked ? "Its frames are sealed; they are opened in this page." : tsr.sealed ? "Names and times come from that recording; its frames are sealed, and what is played here is what the recorder opened." :
    "Names, times and pictures come from that recording; the text, the commands and the list of channels are what the recorder read in it.";
  const check = proof(detail.id, tsr, all.proof, told);
  const src: Source = {
    heads: async () => tsr.heads, block: async (n) => tsr.block(n), size: () => file.length,
    async *all() {
      yield file;
    },
  };
  const at = document.createElement("div");
  await showPlayer(at, detail.id, { source: () => src });
  replace(main, check, at);
}

start().catch((err) => replace(main, h("p", { class: "state", role: "alert" }, `This page cannot be played: ${err instanceof Error ? err.message : err}`)));
