// Whether a recording is as it was made: recording/verify.go is what this follows, and browser_test.go holds both against
// each other.
//
//	pieces ──> chain (SHA-256) ──> checkpoints (Ed25519) ──> Report
//
// Not looked at here, and by `tssh verify` it is: whether the index at the end describes the file, and what is in the
// blocks that a sealed recording has besides.

import { CHECKPOINT, CLOSED, COUNTERSIGNATURE, description, FRAME, INDEX, isBlock, KEY, META, OUTLINE, SIGNED, type Block, type Piece, type Splitter } from "./blocks";
import { ascii, base64, crc32c, hex, le64, same, type Bytes } from "./bytes";
import { sha256, verifier, type Verify } from "./crypto";

const POINTS = 64; // the last checkpoints that a hub's signature may speak of
const MOST = 20; // problems that are told

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
}

export class Verifier {
  readonly r: Report = { id: "", meta: {}, ends: 0, proven: 0, complete: false, problems: [], begun: [], seen: [] };
  private sign!: Verify;
  private prev!: Bytes;
  private alt!: Bytes; // what prev would be if only the chain in the header was changed
  private lastAt = 0;
  private keyless = true;
  private seq = 0;
  private key: Bytes = new Uint8Array(0);
  private metaSum: Bytes = new Uint8Array(0);
  private proven = 0;
  private final = false;
  private covered = false; // no frame since the last checkpoint
  private index = false;
  private done = false;
  private cut = false;
  private points: string[] = [];
  private missing: [number, number][] = []; // numbers that did not come

  constructor(private from: Splitter) {}

  private problem(words: string): void {
    const all = this.r.problems;
    if (all.length < MOST) all.push(`${stamp(this.lastAt)}: ${words}`);
    else if (all.length === MOST) all.push(`${stamp(this.lastAt)}: and more`);
  }

  // take looks at the next piece.
  async take(b: Piece): Promise<void> {
    this.sign ??= await verifier();
    this.prev ??= this.alt = await sha256(this.from.magic);
    if (b === "gap") this.problem(`what follows block ${this.seq - 1} cannot be read`);
    else if (b === "cut") this.cut = true;
    else if (b === "trailer") this.done = true;
    else if (b === "changed trailer") {
      this.done = true;
      this.problem("the end of the file was changed");
    } else if (!isBlock(b)) this.problem(`there are ${b.more} bytes after the end`);
    else await this.block(b);
  }

  private async block(b: Block): Promise<void> {
    const { r } = this;
    const chain = b.head.subarray(SIGNED);
    const signed = b.head.subarray(0, SIGNED);
    let base = this.prev;
    let now = await sha256(this.prev, signed, b.payload);
    if (!same(now, chain) && !same(this.alt, this.prev)) {
      const other = await sha256(this.alt, signed, b.payload);
      if (same(other, chain)) [base, now] = [this.alt, other];
    }
    const good = same(now, chain) && b.seq === this.seq;
    if (!good) {
      if (crc32c(b.payload) !== b.sum) this.problem(`block ${b.seq} (up to ${stamp(b.last)}) was changed`);
      else if (b.seq > this.seq) {
        if (this.missing.length < MOST) this.missing.push([this.seq, b.seq]);
        this.problem(`blocks ${this.seq} to ${b.seq - 1} are missing: cut out, moved, or what follows is from another recording`);
      } else if (b.seq < this.seq) {
        this.problem(this.missing.some(([from, to]) => from <= b.seq && b.seq < to) ? `block ${b.seq} stands after block ${this.seq - 1}: moved, or swapped with it` :
          `block ${b.seq} stands here again, after block ${this.seq - 1}: repeated, or put in`);
      }
      else this.problem(`block ${b.seq} (up to ${stamp(b.last)}) does not follow from what is before it: changed, or from another recording`);
    }
    [this.prev, this.alt] = [chain, now];
    this.seq = b.seq + 1;
    if (good && b.first < this.lastAt) this.problem(`block ${b.seq} begins earlier, at ${stamp(b.first)}`);
    if (this.final && b.type !== INDEX) this.problem(`block ${b.seq} follows the last signature`);
    if ((b.seq === 0) !== (b.type === META)) this.problem(`block ${b.seq} should not be here`);
    if (b.type === META) {
      try {
        r.meta = description(b);
        this.key = base64(String(r.meta.public_key ?? ""));
        if ((r.meta.sealed === true) !== this.from.sealed) this.problem("the description does not say whether the recording is sealed as it is");
      } catch {
        this.problem("the description cannot be read");
      }
      r.id = String(r.meta.id ?? "");
      this.metaSum = await sha256(b.payload);
    } else if (b.type === FRAME) {
      this.covered = false;
      this.lastAt = Math.max(this.lastAt, b.last);
      const closed = (b.flags & CLOSED) !== 0;
      if (this.from.sealed !== closed || (closed && this.keyless)) this.problem(`block ${b.seq} is sealed where it should not be, or is not where it should`);
    } else if (b.type === KEY) {
      this.keyless = false;
    } else if (b.type === OUTLINE) {
      return;
    } else if (b.type === CHECKPOINT) {
      const next = b.payload.slice(0, 32);
      const head = b.head.slice(0, SIGNED);
      head.fill(0, 28, 32); // the signature is part of what the sum is of
      const ok = await this.sign(this.key, b.payload.slice(32), ascii("tssh recording checkpoint\0"), base, head, next);
      this.key = next;
      this.final ||= (b.flags & 2) !== 0;
      if (ok) {
        this.points.push(`${b.seq} ${b.last} ${hex(chain)}`);
        if (this.points.length > POINTS) this.points.shift();
        if (r.problems.length === 0) [this.proven, this.covered] = [b.last, true];
      } else if (good) {
        this.problem(`the signature of what is between ${stamp(this.proven)} and ${stamp(b.last)} does not fit: something in there is not as it was recorded`);
      }
    } else if (b.type === COUNTERSIGNATURE) {
      await this.witness(b);
    } else {
      this.index = true;
      if (!this.final) this.problem("the index comes before the last signature");
    }
  }

  // finish is the end of the file.
  finish(): Report {
    const { r } = this;
    if (!this.done) {
      if (this.cut) this.problem("the file ends inside a block: it was cut, or is being written");
      else if (this.final) this.problem("the index at the end is missing");
      else {
        this.problem("the file ends without the last signature: it was cut, or is still being recorded" +
          (!this.covered && this.lastAt > this.proven ? `; what is after ${stamp(this.proven)} is not signed` : ""));
      }
    }
    r.ends = this.lastAt / 1e6;
    r.proven = this.proven / 1e6;
    r.complete = this.done && this.final && this.index;
    return r;
  }

  // witness checks a hub's signature. Whose key it is, is for the person to know.
  private async witness(b: Block): Promise<void> {
    const { r, metaSum } = this;
    let c: any;
    try {
      c = JSON.parse(new TextDecoder().decode(b.payload));
    } catch {
      return this.problem("the hub's signature of the start does not fit");
    }
    const key = base64(String(c?.key ?? ""));
    const time = micros(String(c?.time ?? ""));
    const chain = c?.chain ? base64(String(c.chain)) : undefined;
    const at = Number(c?.at ?? 0);
    const parts = chain ? [ascii("tssh recording progress\0"), metaSum, le64(Number(c.seq ?? 0)), le64(at), chain, le64(time)] : [ascii("tssh recording start\0"), metaSum, le64(time)];
    const known = !chain || this.points.includes(`${Number(c.seq ?? 0)} ${at} ${hex(chain)}`);
    const ok = known && await this.sign(key, base64(String(c?.signature ?? "")), ...parts);
    if (!ok) {
      return this.problem(chain ? `the hub signed something else as what it had at ${stamp(at)}: this is not the recording that the hub saw` : "the hub's signature of the start does not fit");
    }
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

// micros reads a time as Go writes it; Date alone would lose what is below a millisecond.
function micros(s: string): number {
  const m = /^(.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(s);
  const whole = m ? Date.parse(m[1] + m[3]) : NaN;
  return Number.isNaN(whole) ? 0 : whole * 1000 + Number((m![2] ?? "").padEnd(6, "0").slice(0, 6));
}

// stamp is a time in the words of tssh verify: 0:01:02.3.
export function stamp(us: number): string {
  const tenths = Math.round(us / 1e5);
  const s = Math.floor(tenths / 10);
  const two = (n: number) => String(n).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}.${tenths % 10}`;
}
