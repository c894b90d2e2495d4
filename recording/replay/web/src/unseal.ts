// Opening what is sealed: recording/unseal.go is what this follows, and package recording says what it looks like.

import type { Frame } from "./api";
import { alone, CLOSED, description, HEADER, KEY, META, SIGNED, type Block } from "./blocks";
import { ascii, base64, join, view, type Bytes } from "./bytes";
import { openGcm, sha256now } from "./crypto";
import type { Keys } from "./identity";
import { frameOf } from "./tsr";

const EXTRA = 8 + 12 + 16; // place of the key block, nonce, tag
const STEPS = 1024; // a key of an epoch is remembered every so many blocks
const EPOCHS = 256;

export interface Head { at: number; bytes: Bytes }

// Epoch is what a key block begins: the key of each block comes from the one before.
class Epoch {
  private marks: Bytes[] = []; // of every STEPS-th block
  private cur: { n: number; key: Bytes } | undefined;

  constructor(readonly at: number, readonly seq: number, readonly to: string[], key: Bytes | undefined) {
    if (key) this.marks.push(key);
  }

  get open(): boolean {
    return this.marks.length > 0;
  }

  keyOf(seq: number): Bytes {
    const n = seq - this.seq;
    const mark = Math.min(Math.floor(n / STEPS), this.marks.length - 1);
    let at = this.cur && this.cur.n <= n && this.cur.n >= mark * STEPS ? this.cur : { n: mark * STEPS, key: this.marks[mark] };
    while (at.n < n) {
      at = { n: at.n + 1, key: sha256now(join([ascii("tssh recording seal ratchet\0"), at.key])) };
      if (at.n === this.marks.length * STEPS) this.marks.push(at.key);
    }
    this.cur = at;
    return sha256now(join([ascii("tssh recording seal block\0"), at.key]));
  }
}

export class Opener {
  readonly meta: any; // the description
  private sum: Bytes;
  private epochs = new Map<number, Epoch>();

  // heads are the description's block and key blocks.
  private constructor(head: Head, private keys: Keys) {
    const b = alone(head.bytes, head.at, META);
    this.meta = description(b);
    this.sum = sha256now(b.payload);
  }

  static async with(keys: Keys, heads: Head[]): Promise<Opener> {
    const o = new Opener(heads[0], keys);
    for (const h of heads.slice(1)) await o.add(h);
    return o;
  }

  // add takes a key block.
  async add(h: Head): Promise<void> {
    if (this.epochs.has(h.at) || this.epochs.size >= EPOCHS) return;
    const b = alone(h.bytes, h.at, KEY);
    let to: string[] = [];
    let file: Bytes;
    try {
      const j = JSON.parse(new TextDecoder().decode(b.payload));
      to = j.to.map(String).slice(0, 32);
      file = base64(String(j.key));
    } catch {
      throw new Error("A key in this recording cannot be read.");
    }
    const key = await this.keys.open(file);
    if (key && key.length !== 32) throw new Error("A key in this recording is not what it should be.");
    this.epochs.set(h.at, new Epoch(h.at, b.seq, to, key));
  }

  // some says whether the keys open anything, all whether they open everything there is.
  get some(): boolean {
    return [...this.epochs.values()].some((e) => e.open);
  }

  get all(): boolean {
    return [...this.epochs.values()].every((e) => e.open);
  }

  get to(): string[] {
    return [...new Set([...this.epochs.values()].flatMap((e) => e.to))];
  }

  // keyOf is the place of the key block of a frame, and whether it is here.
  known(b: Block): boolean {
    return this.epochs.has(keyAt(b));
  }

  // frame opens the n-th frame; one that is sealed to others is a gap that says so.
  async frame(n: number, b: Block): Promise<Frame> {
    const e = this.epochs.get(keyAt(b));
    const broken = new Error("The seal is broken: this is not what was recorded here.");
    if (!(b.flags & CLOSED) || !e || b.payload.length < EXTRA || b.seq <= e.seq || b.seq - e.seq > (b.at < 0 ? 2 ** 24 : (b.at - e.at) / HEADER)) throw broken;
    if (!e.open) return { n, keyframes: [], events: [{ t: b.first / 1e6, ch: 0xffffffff, k: "gap", j: { bytes: 0, why: `sealed, and opens with an identity of ${e.to.join(", ")}` } }] };
    const head = b.head.slice(0, SIGNED);
    head.fill(0, 16, 20); // what the ciphertext itself decides: length and sum
    head.fill(0, 28, 32);
    const place = b.payload.slice(0, 8);
    const about = join([ascii("tssh recording seal\0"), this.sum, place, head]);
    let plain: Bytes;
    try {
      plain = await openGcm(e.keyOf(b.seq), b.payload.slice(8, 20), b.payload.slice(20), about);
    } catch {
      throw broken;
    }
    return frameOf(n, b, plain);
  }
}

function keyAt(b: Block): number {
  if (b.payload.length < 8) return -1;
  return Number(view(b.payload).getBigUint64(0, true));
}
