// The sealed bytes of a recording, from the recorder.

import * as api from "./api";
import { base64 as bytesOf, view, type Bytes } from "./bytes";
import type { Source } from "./opened";
import type { Head } from "./unseal";

const CHUNK = 1 << 20;

export class Remote implements Source {
  constructor(public d: () => api.Detail) {}

  private ask(rest: string): Promise<Response> {
    return api.bytes(`/api/recordings/${encodeURIComponent(this.d().id)}/${rest}`);
  }

  size(): number {
    return this.d().size;
  }

  async heads(): Promise<Head[]> {
    const b = new Uint8Array(await (await this.ask("heads")).arrayBuffer());
    const out: Head[] = [];
    for (let at = 0; at + 12 <= b.length; ) {
      const n = view(b).getUint32(at + 8, true);
      out.push({ at: Number(view(b).getBigUint64(at, true)), bytes: b.slice(at + 12, at + 12 + n) });
      at += 12 + n;
    }
    if (out.length === 0) throw new Error("The recorder gave nothing of this recording.");
    return out;
  }

  async block(n: number): Promise<Head> {
    return { at: -1, bytes: new Uint8Array(await (await this.ask(`raw/${n}`)).arrayBuffer()) };
  }

  // all gives the file in pieces, never more of it than one of them.
  async *all(): AsyncGenerator<Bytes> {
    const res = await this.ask("file?for=page");
    const body = res.body!.getReader();
    let parts: Uint8Array[] = [];
    let n = 0;
    const whole = () => {
      const b = new Uint8Array(n);
      let at = 0;
      for (const p of parts) {
        b.set(p, at);
        at += p.length;
      }
      parts = [];
      n = 0;
      return b;
    };
    try {
      for (;;) {
        const { done, value } = await body.read();
        if (done) break;
        parts.push(value);
        n += value.length;
        if (n >= CHUNK) yield whole();
      }
    } finally {
      await body.cancel();
    }
    if (n > 0) yield whole();
  }
}

// fromStream is a frame as a stream has it.
export const fromStream = (raw: string): Head => ({ at: -1, bytes: bytesOf(raw) });
