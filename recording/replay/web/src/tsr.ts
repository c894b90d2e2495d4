// A recording as a file, read and verified in the page: package recording says what it looks like, byte
// for byte, and recording/verify.go is what this follows. browser_test.go holds both against each other.
//
//	bytes ──> blocks ──> chain (SHA-256) ──> checkpoints (Ed25519, WebCrypto) ──> Report
//	              └────> frame(n): zstd ──> keyframes and events, as the API would give them
//
// Not looked at here, and by `tssh verify` it is: whether the index at the end describes the file, and what is in the
// blocks that a sealed recording has besides.

import { decompress } from "fzstd";
import type { Frame, FrameInfo, Happening, Keyframe } from "./api";
import { clock } from "./format";

const MAGIC = "tsshrecording1\r\n";
const SEALED = "tsshrecording2\r\n"; // frames are encrypted; chain and signatures are over what is in the file
const TRAILER = "tssh rec index\r\n";
const HEADER = 96;
const SIGNED = 64;
const MAX_STORED = 5 << 20;
const MAX_RAW = 4 << 20;
const MAX_META = 64 << 10;
const MAX_EVENTS = 131072;
const POINTS = 64; // the last checkpoints that a hub's signature may speak of
const MOST = 20; // problems that are told

const META = 1;
const FRAME = 2;
const CHECKPOINT = 3;
const COUNTERSIGNATURE = 4;
const INDEX = 5;
const KEY = 6;
const OUTLINE = 7;

type Bytes = Uint8Array<ArrayBuffer>;

interface Block {
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

// Witness is a hub's signature: of the beginning, or of how much it had.
export interface Witness { key: string; time: string; until?: number }

export interface Report {
  id: string;
  meta: any;
  ends: number; // seconds
  proven: number;
  complete: boolean;
  problems: string[];
  begun: Witness[];
  seen: Witness[];
  // why signatures were not looked at; then proven is 0 and what is said is about the chain alone
  unsigned?: string;
}

export class NotARecording extends Error {}

// Tsr is a recording in memory.
export class Tsr {
  private frames: Block[] | undefined;

  constructor(private file: Bytes) {}

  get sealed(): boolean {
    return latin(this.file.subarray(0, 16)) === SEALED;
  }

  // meta is the recording's description of itself, which its first signature covers.
  get meta(): any {
    for (const b of this.blocks()) {
      if (typeof b !== "string" && b.type === META) return description(b);
      break;
    }
    throw new NotARecording("This recording does not describe itself.");
  }

  // index says where frames begin and end, as far as the file goes.
  get index(): FrameInfo[] {
    return this.all().map((b, n) => ({ n, first: b.first / 1e6, last: b.last / 1e6, bytes: b.payload.length, events: b.events, keyframe: (b.flags & 1) !== 0 }));
  }

  private all(): Block[] {
    return (this.frames ??= [...this.blocks()].filter((b): b is Block => typeof b !== "string" && b.type === FRAME));
  }

  // frame gives the n-th frame. It is decoded each time; the player keeps what it needs.
  frame(n: number): Frame {
    const b = this.all()[n];
    if (!b) throw new Error("The recording in this page has no such part.");
    try {
      return decode(n, b);
    } catch {
      throw new Error(`The part of this recording at ${clock(b.first / 1e6, true)} cannot be read.`);
    }
  }

  // blocks gives all blocks in the order of the file, and words where something else is.
  private *blocks(): Generator<Block | "gap" | "cut" | "trailer" | "changed trailer" | "more"> {
    const f = this.file;
    if (latin(f.subarray(0, 16)) !== MAGIC && !this.sealed) throw new NotARecording("This is not a recording of a kind that this page knows.");
    let at = 16;
    let lost = false;
    while (at < f.length) {
      const b = header(f, at);
      if (b === "short") {
        if (!lost) yield "cut";
        return;
      }
      if (b === "bad") {
        if (!lost) yield "gap";
        lost = true;
        at = nextMagic(f, at + 1);
        continue;
      }
      lost = false;
      yield b;
      at += HEADER + b.payload.length;
      if (b.type !== INDEX) continue;
      if (f.length - at < 24) {
        if (at < f.length) yield "cut";
        return;
      }
      const t = f.subarray(at, at + 24);
      const whole = latin(t.subarray(8)) === TRAILER && view(t).getBigUint64(0, true) === BigInt(at - HEADER - b.payload.length);
      yield whole ? "trailer" : "changed trailer";
      if (f.length > at + 24) yield "more";
      return;
    }
  }

  async verify(): Promise<Report> {
    const r: Report = { id: "", meta: {}, ends: 0, proven: 0, complete: false, problems: [], begun: [], seen: [] };
    let lastAt = 0;
    const problem = (words: string) => {
      if (r.problems.length < MOST) r.problems.push(`${stamp(lastAt)}: ${words}`);
      else if (r.problems.length === MOST) r.problems.push(`${stamp(lastAt)}: and more`);
    };
    const sign = await verifier();
    if (typeof sign === "string") r.unsigned = sign;
    let prev: Bytes = await sha256(this.file.subarray(0, 16));
    let keyless = true;
    let alt = prev; // what prev would be if only the chain in the header was changed
    let seq = 0;
    let key: Bytes = new Uint8Array(0);
    let metaSum: Bytes = new Uint8Array(0);
    let proven = 0;
    let final = false;
    let sealed = false;
    let index = false;
    let done = false;
    let cut = false;
    const points: string[] = [];
    const missing: [number, number][] = []; // numbers that did not come

    for (const b of this.blocks()) {
      if (b === "gap") problem(`what follows block ${seq - 1} cannot be read`);
      else if (b === "cut") cut = true;
      else if (b === "more") problem(`there are ${this.after()} bytes after the end`);
      else if (b === "trailer") done = true;
      else if (b === "changed trailer") {
        done = true;
        problem("the end of the file was changed");
      }
      if (typeof b === "string") continue;
      const chain = b.head.subarray(SIGNED);
      const signed = b.head.subarray(0, SIGNED);
      let base = prev;
      let now = await sha256(prev, signed, b.payload);
      if (!same(now, chain) && !same(alt, prev)) {
        const other = await sha256(alt, signed, b.payload);
        if (same(other, chain)) [base, now] = [alt, other];
      }
      const good = same(now, chain) && b.seq === seq;
      if (!good) {
        if (crc32c(b.payload) !== b.sum) problem(`block ${b.seq} (up to ${stamp(b.last)}) was changed`);
        else if (b.seq > seq) {
          if (missing.length < MOST) missing.push([seq, b.seq]);
          problem(`blocks ${seq} to ${b.seq - 1} are missing: cut out, moved, or what follows is from another recording`);
        } else if (b.seq < seq) {
          problem(missing.some(([from, to]) => from <= b.seq && b.seq < to) ? `block ${b.seq} stands after block ${seq - 1}: moved, or swapped with it` :
            `block ${b.seq} stands here again, after block ${seq - 1}: repeated, or put in`);
        }
        else problem(`block ${b.seq} (up to ${stamp(b.last)}) does not follow from what is before it: changed, or from another recording`);
      }
      [prev, alt] = [chain, now];
      seq = b.seq + 1;
      if (good && b.first < lastAt) problem(`block ${b.seq} begins earlier, at ${stamp(b.first)}`);
      if (final && b.type !== INDEX) problem(`block ${b.seq} follows the last signature`);
      if ((b.seq === 0) !== (b.type === META)) problem(`block ${b.seq} should not be here`);
      if (b.type === META) {
        try {
          r.meta = description(b);
          key = base64(String(r.meta.public_key ?? ""));
          if ((r.meta.sealed === true) !== this.sealed) problem("the description does not say whether the recording is sealed as it is");
        } catch {
          problem("the description cannot be read");
        }
        r.id = String(r.meta.id ?? "");
        metaSum = await sha256(b.payload);
      } else if (b.type === FRAME) {
        sealed = false;
        lastAt = Math.max(lastAt, b.last);
        const closed = (b.flags & 4) !== 0;
        if (this.sealed !== closed || (closed && keyless)) problem(`block ${b.seq} is sealed where it should not be, or is not where it should`);
      } else if (b.type === KEY) {
        keyless = false;
      } else if (b.type === OUTLINE) {
        continue;
      } else if (b.type === CHECKPOINT) {
        const next = b.payload.slice(0, 32);
        const head = b.head.slice(0, SIGNED);
        head.fill(0, 28, 32); // the signature is part of what the sum is of
        const ok = typeof sign === "string" || await sign(key, b.payload.slice(32), ascii("tssh recording checkpoint\0"), base, head, next);
        key = next;
        final ||= (b.flags & 2) !== 0;
        if (ok) {
          points.push(`${b.seq} ${b.last} ${hex(chain)}`);
          if (points.length > POINTS) points.shift();
          if (r.problems.length === 0) [proven, sealed] = [b.last, true];
        } else if (good) {
          problem(`the signature of what is between ${stamp(proven)} and ${stamp(b.last)} does not fit: something in there is not as it was recorded`);
        }
      } else if (b.type === COUNTERSIGNATURE) {
        await this.witness(b, r, sign, metaSum, points, problem);
      } else {
        index = true;
        if (!final) problem("the index comes before the last signature");
      }
    }
    if (!done) {
      if (cut) problem("the file ends inside a block: it was cut, or is being written");
      else if (final) problem("the index at the end is missing");
      else {
        problem("the file ends without the last signature: it was cut, or is still being recorded" +
          (!sealed && lastAt > proven ? `; what is after ${stamp(proven)} is not signed` : ""));
      }
    }
    r.ends = lastAt / 1e6;
    r.proven = r.unsigned ? 0 : proven / 1e6;
    r.complete = done && final && index;
    return r;
  }

  private after(): number {
    let end = 16;
    for (const b of this.blocks()) {
      if (typeof b !== "string") end = b.payload.byteOffset + b.payload.length - this.file.byteOffset;
    }
    return this.file.length - end - 24;
  }

  // witness checks a hub's signature. Whose key it is, is for the person to know.
  private async witness(b: Block, r: Report, sign: Verify | string, metaSum: Bytes, points: string[], problem: (words: string) => void) {
    let c: any;
    try {
      c = JSON.parse(new TextDecoder().decode(b.payload));
    } catch {
      return problem("the hub's signature of the start does not fit");
    }
    const key = base64(String(c?.key ?? ""));
    const time = micros(String(c?.time ?? ""));
    const chain = c?.chain ? base64(String(c.chain)) : undefined;
    const at = Number(c?.at ?? 0);
    const parts = chain ? [ascii("tssh recording progress\0"), metaSum, le64(Number(c.seq ?? 0)), le64(at), chain, le64(time)] : [ascii("tssh recording start\0"), metaSum, le64(time)];
    const known = !chain || points.includes(`${Number(c.seq ?? 0)} ${at} ${hex(chain)}`);
    const ok = known && (typeof sign === "string" || await sign(key, base64(String(c?.signature ?? "")), ...parts));
    if (!ok) {
      return problem(chain ? `the hub signed something else as what it had at ${stamp(at)}: this is not the recording that the hub saw` : "the hub's signature of the start does not fit");
    }
    if (typeof sign === "string") return;
    const w: Witness = { key: String(c.key), time: new Date(time / 1000).toISOString() };
    if (!chain) {
      if (r.begun.length < 8) r.begun.push(w);
      return;
    }
    w.until = at / 1e6;
    const old = r.seen.findIndex((x) => x.key === w.key);
    if (old >= 0) r.seen[old] = w;
    else if (r.seen.length < 8) r.seen.push(w);
  }
}

function header(f: Bytes, at: number): Block | "short" | "bad" {
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
  return { type, flags, seq, raw, events, sum, first, last, head, payload: f.subarray(at + HEADER, at + HEADER + stored) };
}

function description(b: Block): any {
  const m = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(b.payload));
  if (typeof m !== "object" || m === null) throw new Error("no description");
  return m;
}

function nextMagic(f: Bytes, from: number): number {
  for (let i = from; i + 4 <= f.length; i++) if (f[i] === 0x74 && f[i + 1] === 0x73 && f[i + 2] === 0x72 && f[i + 3] === 0x62) return i;
  return f.length;
}

const KINDS = ["", "output", "stderr", "input", "resize", "open", "exit", "close", "signal", "file", "gap", "note", "end", "input-summary", "forward", "bulk", "hidden"];
const IN_BYTES = new Set(["output", "stderr", "input", "close", "signal"]);

function decode(n: number, b: Block): Frame {
  const d = decompress(b.payload, new Uint8Array(b.raw));
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

// Points of small order: anybody can make up a signature "by" one of these.
const WEAK = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

type Verify = (key: Bytes, signature: Bytes, ...message: Uint8Array[]) => Promise<boolean>;

// verifier gives what checks signatures, or why there is nothing that does.
async function verifier(): Promise<Verify | string> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new Error("this browser gives this page no cryptography");
  const load = (key: Bytes) => subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  try {
    // RFC 8032, 7.1, test 1: a browser that only claims to know Ed25519 shows here.
    const key = await load(unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
    const sig = unhex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b");
    if (!(await subtle.verify({ name: "Ed25519" }, key, sig, new Uint8Array(0)))) throw new Error();
  } catch {
    return "this browser does not know Ed25519 signatures";
  }
  return async (key, signature, ...message) => {
    if (key.length !== 32 || signature.length !== 64) return false;
    const plain = key.slice();
    plain[31] &= 0x7f;
    if (WEAK.has(hex(plain))) return false;
    try {
      return await subtle.verify({ name: "Ed25519" }, await load(key), signature, join(message));
    } catch {
      return false; // not a point
    }
  };
}

const sha256 = async (...parts: Uint8Array[]): Promise<Bytes> => new Uint8Array(await crypto.subtle.digest("SHA-256", join(parts)));

function join(parts: Uint8Array[]): Bytes {
  const b = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    b.set(p, at);
    at += p.length;
  }
  return b;
}

const same = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((x, i) => x === b[i]);
const view = (b: Uint8Array) => new DataView(b.buffer, b.byteOffset, b.byteLength);
const latin = (b: Uint8Array) => String.fromCharCode(...b);
const ascii = (s: string): Bytes => Uint8Array.from(s, (c) => c.charCodeAt(0));
const hex = (b: Uint8Array) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
const unhex = (s: string): Bytes => Uint8Array.from(s.match(/../g)!, (x) => parseInt(x, 16));

function le64(n: number): Bytes {
  const b = new Uint8Array(8);
  view(b).setBigInt64(0, BigInt(Number.isSafeInteger(n) ? n : 0), true);
  return b;
}

export function base64(s: string): Bytes {
  try {
    return Uint8Array.from(atob(s.trim()), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array(0);
  }
}

// micros reads a time as Go writes it; Date alone would lose what is below a millisecond.
function micros(s: string): number {
  const m = /^(.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(s);
  const whole = m ? Date.parse(m[1] + m[3]) : NaN;
  return Number.isNaN(whole) ? 0 : whole * 1000 + Number((m![2] ?? "").padEnd(6, "0").slice(0, 6));
}

// stamp is a time in the words of tssh verify: 0:01:02.3.
function stamp(us: number): string {
  const tenths = Math.round(us / 1e5);
  const s = Math.floor(tenths / 10);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}.${tenths % 10}`;
}

let table: Uint32Array | undefined;

function crc32c(b: Uint8Array): number {
  if (!table) {
    table = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      let c = i;
      for (let j = 0; j < 8; j++) c = c & 1 ? 0x82f63b78 ^ (c >>> 1) : c >>> 1;
      table[i] = c >>> 0;
    }
  }
  let c = ~0;
  for (const x of b) c = table[(c ^ x) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}
