// A recording as a file that is in the page.
//
//	bytes ──> blocks.ts ──> verify.ts ──> Report
//	              └────> opened where it is sealed (unseal.ts) ──> frame.ts ──> keyframes and events

import type { Frame, FrameInfo } from "./api";
import { description, FRAME, HEADER, isBlock, KEY, META, NotARecording, Splitter, type Block } from "./blocks";
import type { Bytes } from "./bytes";
import { clock } from "./format";
import { decode } from "./frame";
import { Verifier, type Report } from "./verify";

export class Tsr {
  readonly sealed: boolean;
  private frames: Block[] = [];
  private first: Block | undefined;
  readonly heads: { at: number; bytes: Bytes }[] = []; // the description's block, and those of keys

  constructor(readonly file: Bytes) {
    const s = new Splitter();
    for (const b of s.push(file)) {
      if (!isBlock(b)) continue;
      if (b.type === META) this.first ??= b;
      if (b.type === FRAME) this.frames.push(b);
      if (b.type === META || b.type === KEY) this.heads.push({ at: b.at, bytes: this.whole(b) });
    }
    this.sealed = s.sealed;
  }

  // meta is the recording's description of itself, which its first signature covers.
  get meta(): any {
    if (!this.first) throw new NotARecording("This recording does not describe itself.");
    return description(this.first); // changed or not: that is for the verifier to say
  }

  private whole(b: Block): Bytes {
    return this.file.subarray(b.at, b.at + HEADER + b.payload.length);
  }

  // index says where frames begin and end, as far as the file goes.
  get index(): FrameInfo[] {
    return this.frames.map(infoOf);
  }

  // block is the n-th frame as it is in the file.
  block(n: number): { at: number; bytes: Bytes } {
    const b = this.frames[n];
    if (!b) throw new Error("The recording in this page has no such part.");
    return { at: b.at, bytes: this.whole(b) };
  }

  // frame gives the n-th frame of one that is not sealed. It is decoded each time; the player keeps what it needs.
  frame(n: number): Frame {
    const b = this.frames[n];
    if (!b) throw new Error("The recording in this page has no such part.");
    return frameOf(n, b, b.payload);
  }

  async verify(): Promise<Report> {
    const s = new Splitter();
    const v = new Verifier(s);
    for (const p of s.push(this.file)) await v.take(p);
    for (const p of s.end()) await v.take(p);
    return v.finish();
  }
}

export const infoOf = (b: Block, n: number): FrameInfo => ({ n, first: b.first / 1e6, last: b.last / 1e6, bytes: b.payload.length, events: b.events, keyframe: (b.flags & 1) !== 0 });

export function frameOf(n: number, b: Block, payload: Bytes): Frame {
  try {
    return decode(n, b, payload);
  } catch {
    throw new Error(`The part of this recording at ${clock(b.first / 1e6, true)} cannot be read.`);
  }
}
