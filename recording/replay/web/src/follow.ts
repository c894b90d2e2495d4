// Following a session that runs: the recorder sends each frame as soon as it has it. Frames are counted, so a
// connection that was lost, or given up while nobody looked, goes on where it was.
//
//	           looked at            nobody looks
//	  streams <---------- waits <----------------- streams, asks
//	     |                  |
//	     | lost             | three other pages of this browser stream
//	     v                  v
//	  asks until there is an answer, then streams; or asks every two seconds

import * as api from "./api";
import { revive } from "./format";
import type { Opened } from "./opened";
import { fromStream } from "./remote";
import type { Recording } from "./recording";

const ASK = 2000; // ms between two questions where there is no stream
const LATEST = 30_000; // ms between two tries, at most
const UNSEEN = 20_000; // ms after which a page that nobody looks at gives its stream up
const STREAMS = 3; // of one browser, which has six connections to one place
const HEAR = 1000; // ms in which other pages answer
const LOOK = 15; // questions after which a page looks for a free place

export interface Follower {
  grown(): void; // there is more
  changed(): void; // of what is known of it, who watches included
  over(): void;
  failed(err: unknown): void;
  recovered(): void;
}

// follow takes frames as they come; those that are sealed to opened as they are.
export function follow(rec: Recording, opened: Opened | undefined, on: Follower): void {
  let before = Promise.resolve(); // opening takes its time, and frames keep their order
  const places = new Places();
  let src: EventSource | undefined;
  let timer = 0;
  let run = 0; // counts beginnings; what belongs to an earlier one does nothing
  let ended = false;

  function stop(): void {
    run++;
    clearTimeout(timer);
    src?.close();
    src = undefined;
    places.leave();
  }

  function finish(): void {
    stop();
    ended = true;
    places.close();
    document.removeEventListener("visibilitychange", looked);
  }

  async function begin(): Promise<void> {
    stop();
    const mine = run;
    const free = (await places.others()) < STREAMS;
    if (mine !== run) return;
    if (free) stream();
    else ask(0, ASK);
  }

  function stream(): void {
    places.take();
    const s = (src = new EventSource(`${api.base}/api/recordings/${encodeURIComponent(rec.d.id)}/live?from=${rec.d.frames.length}${opened ? "&raw=1" : ""}`));
    s.addEventListener("open", () => on.recovered());
    s.addEventListener("state", (e) => {
      rec.became(JSON.parse(e.data, revive));
      on.changed();
    });
    s.addEventListener("frame", (e) => {
      const x = JSON.parse(e.data);
      if (!opened) {
        if (rec.take(x.row, api.toFrame(x.row.n, x.frame))) on.grown();
        return;
      }
      before = before.then(async () => {
        if (x.row.n === rec.d.frames.length && rec.take(x.row, await opened.open(x.row.n, fromStream(x.raw)))) on.grown();
      }).catch((err) => on.failed(err));
    });
    s.addEventListener("end", () => {
      finish();
      void before.then(() => on.over());
    });
    s.addEventListener("refused", (e) => {
      finish();
      on.failed(new api.Refusal(403, JSON.parse(e.data).error));
    });
    s.addEventListener("error", () => {
      on.failed(new api.Refusal(0, "The connection to the recorder was lost. It is tried again."));
      if (s.readyState !== EventSource.CLOSED || s !== src) return; // the browser tries by itself
      stop();
      ask(LOOK, 1000);
    });
  }

  // ask asks what is new: after a loss until there is an answer, and otherwise again and again.
  function ask(asked: number, wait: number): void {
    const mine = run;
    timer = window.setTimeout(() => {
      api.detail(rec.d.id, rec.d.frames.length).then((d) => {
        if (mine !== run) return;
        on.recovered();
        if (rec.goesOn(d)) on.grown();
        on.changed();
        if (!d.live) {
          finish();
          on.over();
        } else if (asked >= LOOK) void begin();
        else ask(asked + 1, ASK);
      }, (err) => {
        if (mine !== run) return;
        on.failed(api.passes(err) ? new api.Refusal(0, "The recorder cannot be reached. It is tried again.") : err);
        if (api.passes(err)) ask(LOOK, Math.min(LATEST, wait * 2));
        else finish();
      });
    }, wait);
  }

  let unseen = 0;
  function looked(): void {
    clearTimeout(unseen);
    if (document.hidden) unseen = window.setTimeout(stop, UNSEEN);
    else if (!ended && !src) void begin();
  }
  document.addEventListener("visibilitychange", looked);
  window.addEventListener("pagehide", () => places.leave());
  if (document.hidden) stop();
  else void begin();
}

// Places is how many pages of this browser have a stream; they ask each other.
class Places {
  private channel = "BroadcastChannel" in window ? new BroadcastChannel("tssh-streams") : undefined;
  private me = Math.random();
  private mine = false;
  private heard = new Set<number>();

  constructor() {
    this.channel?.addEventListener("message", ({ data }) => {
      if (data.ask !== undefined && this.mine) this.channel?.postMessage({ have: this.me, to: data.ask });
      if (data.to === this.me) this.heard.add(data.have);
    });
  }

  async others(): Promise<number> {
    if (!this.channel) return 0;
    this.heard.clear();
    this.channel.postMessage({ ask: this.me });
    await new Promise((done) => setTimeout(done, HEAR));
    return this.heard.size;
  }

  take(): void {
    this.mine = true;
  }

  leave(): void {
    this.mine = false;
  }

  close(): void {
    this.leave();
    this.channel?.close();
    this.channel = undefined;
  }
}
