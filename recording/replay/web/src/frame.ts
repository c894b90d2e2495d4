// A frame's bytes into keyframes and events, as the API would give them.

import { decompress } from "fzstd";
import type { Frame, Happening, Keyframe } from "./api";
import type { Block } from "./blocks";
import type { Bytes } from "./bytes";

const KINDS = ["", "output", "stderr", "input", "resize", "open", "exit", "close", "signal", "file", "gap", "note", "end", "input-summary", "forward", "bulk", "hidden"];
const IN_BYTES = new Set(["output", "stderr", "input", "close", "signal"]);

// decode takes the payload of b, opened where it was sealed.
export function decode(n: number, b: Block, payload: Bytes): Frame {
  const d = decompress(payload, new Uint8Array(b.raw));
  if (d.length !== b.raw) throw new Error("length");
  let at = 0;
  const uvarint = (): number => {
    let v = 0;
    for (let shift = 0; shift < 53; shift += 7) {
      if (at >= d.length) throw new Error("short");
      const c = d[at++];
      v += (c & 0x7f) * 2 ** shift;
      if (c < 0x80) return v;
    }
    throw new Error("number");
  };
  const bytes = (): Uint8Array => {
    const len = uvarint();
    if (len > d.length - at) throw new Error("short");
    at += len;
    return d.subarray(at - len, at);
  };
  const keyframes: Keyframe[] = [];
  if (b.flags & 1) {
    for (let left = uvarint(); left > 0; left--) keyframes.push({ channel: uvarint(), cols: uvarint(), rows: uvarint(), data: bytes() });
  }
  const events: Happening[] = [];
  let t = b.first;
  while (at < d.length) {
    t += uvarint();
    const ch = uvarint();
    const k = KINDS[d[at++]];
    const data = bytes();
    if (!k) continue; // of a later version
    const e: Happening = { t: t / 1e6, ch, k };
    if (IN_BYTES.has(k)) e.data = data;
    else {
      try {
        e.j = JSON.parse(new TextDecoder().decode(data));
      } catch {
        continue; // the host wrote something else than its kind says
      }
    }
    events.push(e);
  }
  return { n, keyframes, events };
}
