// What an event says in words, where it is not a terminal's or a program's bytes: recording/words.go has the same.

import type { Happening } from "./api";

const bytes = (n: unknown) => `${Number(n) || 0} bytes`;
const s = (x: unknown) => (typeof x === "string" ? x : "");
const words = (...all: unknown[]) => all.map(s).join(" ").trim();

export function markOf(e: Happening): { kind: string; text: string } | undefined {
  const j = e.j ?? {};
  switch (e.k) {
    case "signal":
      return { kind: "signal", text: `SIG${new TextDecoder().decode(e.data?.subarray(0, 64))}` };
    case "gap":
      return { kind: "gap", text: `${bytes(j.bytes)} not kept: ${s(j.why)}` };
    case "note":
      return { kind: "note", text: words(j.what, j.text) };
    case "hidden":
      return { kind: "hidden", text: `${Number(j.keys) || 0} keys typed while the terminal showed none` };
    case "input-summary":
      return { kind: "input", text: `${bytes(j.bytes)} from the client in all${j.sha256 ? `, sha256 ${s(j.sha256)}` : ""}` };
    case "end":
      return { kind: "end", text: words(j.cause, j.text) };
  }
  return undefined;
}

export function fileWords(f: any): string {
  return `${s(f.op)} ${s(f.path)}${f.target ? ` \u2192 ${s(f.target)}` : ""}${f.bytes > 0 ? `, ${bytes(f.bytes)}` : ""}${f.sha256 ? `, sha256 ${s(f.sha256)}` : ""}${f.error ? `: ${s(f.error)}` : ""}`;
}

export function forwardWords(f: any): string {
  let text = `${s(f.state)} ${s(f.type)} ${s(f.target)}`.split(/\s+/).filter((w) => w).join(" ");
  if (f.origin) text += ` from ${s(f.origin)}`;
  if (f.state === "closed") text += `, ${bytes(f.sent)} sent, ${Number(f.received) || 0} received, ${((Number(f.ms) || 0) / 1000).toFixed(1)} s`;
  if (f.error) text += `: ${s(f.error)}`;
  return text;
}

export function bulkWords(k: any): string {
  if (!k.bytes) return `${s(k.stream)}: from here on counted and hashed, not kept`;
  return `${s(k.stream)}: ${bytes(k.bytes)} were not kept, sha256 ${s(k.sha256)}`;
}

export const exitWords = (x: any) => (x.signal ? `killed by SIG${s(x.signal)}` : `status ${Number(x.status) || 0}`);
