// One recording as the player sees it: its index, and frames that come when they are needed.

import * as api from "./api";

const LONGEST = 10_000; // ms between two tries
const KEPT = 24; // frames in memory, at most some 256 kB of recorded bytes each

export class Recording {
  private cache = new Map<number, Promise<api.Frame>>();
  private loaded = new Map<number, api.Frame>();

  // Where the recorder is away a frame is tried for until it comes or nobody wants it any more.
  trouble: (err: api.Refusal) => void = () => {};
  recovered: () => void = () => {};
  private troubled = false;

  public d: api.Detail;

  // amend adds to each description what is known here.
  constructor(d: api.Detail, private amend: (d: api.Detail) => api.Detail = (x) => x) {
    this.d = amend(d);
  }

  get end(): number {
    return this.d.duration;
  }

  frame(n: number): Promise<api.Frame> {
    let f = this.cache.get(n);
    if (f) {
      this.cache.delete(n); // and back in, as the most recently used
    } else {
      f = this.get(n);
      f.then((v) => this.cache.has(n) && this.loaded.set(n, v)).catch(() => this.forget(n));
    }
    this.cache.set(n, f);
    for (const old of this.cache.keys()) {
      if (this.cache.size <= KEPT) break;
      this.forget(old);
    }
    return f;
  }

  private async get(n: number): Promise<api.Frame> {
    for (let wait = 500; ; wait = Math.min(LONGEST, wait * 2)) {
      try {
        const f = await api.frame(this.d.id, n);
        if (this.troubled) {
          this.troubled = false;
          this.recovered();
        }
        return f;
      } catch (err) {
        if (!api.passes(err) || !this.cache.has(n)) throw err;
        this.troubled = true;
        this.trouble(new api.Refusal(0, "The recorder cannot be reached. This goes on by itself when it answers."));
        await again(wait);
      }
    }
  }

  // here gives a frame only if it has come already.
  here(n: number): api.Frame | undefined {
    return this.loaded.get(n);
  }

  private forget(n: number) {
    this.cache.delete(n);
    this.loaded.delete(n);
  }

  // frameAt is the last frame that begins at or before t.
  frameAt(t: number): number {
    const f = this.d.frames;
    let lo = 0;
    let hi = f.length - 1;
    while (lo < hi) {
      const mid = (lo + hi + 1) >> 1;
      if (f[mid].first <= t) lo = mid;
      else hi = mid - 1;
    }
    return lo;
  }

  // take adds a frame that came by itself; false when it is not the next one.
  take(row: api.FrameInfo, f: api.Frame): boolean {
    if (row.n !== this.d.frames.length) return false;
    this.d.frames.push(row);
    this.d.duration = Math.max(this.d.duration, row.last);
    this.d.size += row.bytes;
    this.cache.set(row.n, Promise.resolve(f));
    this.loaded.set(row.n, f);
    for (const old of this.cache.keys()) {
      if (this.cache.size <= KEPT) break;
      this.forget(old);
    }
    return true;
  }

  // goesOn takes the description with the part of the index that was not known; false when there is no more than before.
  goesOn(d: api.Detail): boolean {
    const longer = d.frames.length > 0;
    this.d = { ...this.amend(d), frames: [...this.d.frames, ...d.frames.filter((f) => f.n >= this.d.frames.length)] };
    return longer;
  }

  // became takes what is said of the recording now, without its index.
  became(d: api.Detail): void {
    this.d = { ...this.amend(d), frames: this.d.frames, duration: this.d.duration, size: this.d.size };
  }
}

// again waits, but no longer than until the browser has a network again.
function again(ms: number): Promise<void> {
  return new Promise((done) => {
    const go = () => {
      clearTimeout(timer);
      window.removeEventListener("online", go);
      done();
    };
    const timer = setTimeout(go, ms);
    window.addEventListener("online", go);
  });
}
