// A recording taken apart into blocks, whole or as it comes: package recording says what it looks like, byte for byte.

import { crc32c, latin, view, type Bytes } from "./bytes";

const MAGIC = "tsshrecording1\r\n";
const SEALED = "tsshrecording2\r\n"; // frames are encrypted; chain and signatures are over what is in the file
const TRAILER = "tssh rec index\r\n";
export const HEADER = 96;
export const SIGNED = 64;
const MAX_STORED = 5 << 20;
const MAX_RAW = 4 << 20;
const MAX_META = 64 << 10;
const MAX_EVENTS = 131072;

export const META = 1;
export const FRAME = 2;
export const CHECKPOINT = 3;
export const COUNTERSIGNATURE = 4;
export const INDEX = 5;
export const KEY = 6;
export const OUTLINE = 7;
export const CLOSED = 4; // flag: the frame is sealed

export interface Block {
  at: number; // where it is in the file
  type: number;
  flags: number;
  seq: number;
  raw: number;
  events: number;
  sum: number;
  first: number; // microseconds
  last: number;
  head: Bytes; // all 96
  payload: Bytes;
}

// What a file is made of: blocks, and words where something else is. More is how many bytes come after the end.
export type Piece = Block | "gap" | "cut" | "trailer" | "changed trailer" | { more: number };

export const isBlock = (p: Piece): p is Block => typeof p === "object" && "type" in p;

export class NotARecording extends Error {}

// Splitter gives the pieces of a file whose bytes come one after the other. It keeps what is not whole yet, a block at most.
export class Splitter {
  sealed = false;
  magic: Bytes = new Uint8Array(0);
  private buf: Bytes = new Uint8Array(0);
  private off = 0; // of buf in the file
  private lost = false;
  private index = -1; // where the index is
  private done = false;
  private after = 0;

  *push(chunk: Bytes): Generator<Piece> {
    if (this.buf.length === 0) this.buf = chunk;
    else {
      const b = new Uint8Array(this.buf.length + chunk.length);
      b.set(this.buf);
      b.set(chunk, this.buf.length);
      this.buf = b;
    }
    let at = 0;
    const f = this.buf;
    if (this.off === 0) {
      if (f.length < 16) return;
      this.magic = f.slice(0, 16);
      this.sealed = latin(this.magic) === SEALED;
      if (!this.sealed && latin(this.magic) !== MAGIC) throw new NotARecording("This is not a recording of a kind that this page knows.");
      at = 16;
    }
    while (at < f.length && !this.done) {
      if (this.index >= 0) {
        if (f.length - at < 24) break;
        const t = f.subarray(at, at + 24);
        this.done = true;
        at += 24;
        yield latin(t.subarray(8)) === TRAILER && view(t).getBigUint64(0, true) === BigInt(this.index) ? "trailer" : "changed trailer";
        continue;
      }
      const b = header(f, at);
      if (b === "short") break;
      if (b === "bad") {
        if (!this.lost) yield "gap";
        this.lost = true;
        at = nextMagic(f, at + 1);
        continue;
      }
      this.lost = false;
      b.at = this.off + at;
      at += HEADER + b.payload.length;
      if (b.type === INDEX) this.index = b.at;
      yield b;
    }
    if (this.done) {
      this.after += f.length - at;
      at = f.length;
    }
    this.buf = f.subarray(at);
    this.off += at;
  }

  *end(): Generator<Piece> {
    if (this.off === 0) throw new NotARecording("This is not a recording of a kind that this page knows.");
    if (this.after > 0) yield { more: this.after };
    if (!this.done && this.buf.length > 0 && !this.lost) yield "cut";
  }
}

// header reads the block at a place.
export function header(f: Bytes, at: number): Block | "short" | "bad" {
  if (f.length - at < HEADER) return "short";
  const head = f.subarray(at, at + HEADER);
  const v = view(head);
  const big = (o: number) => {
    const n = v.getBigUint64(o, true);
    return n < 1n << 53n ? Number(n) : -1;
  };
  const [type, flags, seq] = [head[4], head[5], big(8)];
  const [stored, raw, events, sum] = [16, 20, 24, 28].map((o) => v.getUint32(o, true));
  const [first, last, journal] = [big(32), big(40), big(48)];
  let ok = latin(head.subarray(0, 4)) === "tsrb" && head[6] === 0 && head[7] === 0 && stored <= MAX_STORED && raw <= MAX_RAW && events <= MAX_EVENTS &&
    first >= 0 && first <= last && journal >= 0 && seq >= 0 && seq < 2 ** 48;
  if (type === META) ok &&= seq === 0 && flags === 0 && stored === raw && stored <= MAX_META;
  else if (type === FRAME) ok &&= (flags & ~5) === 0 && events > 0 && stored > 0;
  else if (type === CHECKPOINT) ok &&= (flags & ~2) === 0 && stored === 96 && raw === 96;
  else if (type === COUNTERSIGNATURE || type === KEY || type === OUTLINE) ok &&= flags === 0 && stored === raw && stored <= MAX_META;
  else ok &&= type === INDEX && flags === 0;
  if (!ok) return "bad";
  if (f.length - at < HEADER + stored) return "short";
  return { at, type, flags, seq, raw, events, sum, first, last, head, payload: f.subarray(at + HEADER, at + HEADER + stored) };
}

// alone reads one block that came by itself, and says no where it is not what its header says.
export function alone(b: Bytes, at: number, type: number): Block {
  const x = header(b, 0);
  if (typeof x === "string" || x.type !== type || HEADER + x.payload.length !== b.length || crc32c(x.payload) !== x.sum) throw new Error("A part of this recording is not what it should be.");
  x.at = at;
  return x;
}

// description is the recording's own, which its first signature covers.
export function description(b: Block): any {
  const m = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(b.payload));
  if (typeof m !== "object" || m === null) throw new Error("no description");
  return m;
}

// nextMagic is where the next block may begin; the last bytes may be a part of its first ones.
function nextMagic(f: Bytes, from: number): number {
  for (let i = from; i + 4 <= f.length; i++) if (f[i] === 0x74 && f[i + 1] === 0x73 && f[i + 2] === 0x72 && f[i + 3] === 0x62) return i;
  return Math.max(from, f.length - 3);
}
