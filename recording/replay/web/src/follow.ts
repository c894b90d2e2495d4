// Following a session that runs: the recorder sends each frame as soon as it has it. Frames are
// counted, so a connection that was lost goes on where it was.

import * as api from "./api";
import type { Recording } from "./recording";

const AGAIN = 5000; // ms, where the recorder does not give the stream

export interface Follower {
  grown(): void; // there is more
  changed(): void; // of what is known of it, who watches included
  over(): void;
  failed(err: unknown): void;
  recovered(): void;
}

export function follow(rec: Recording, on: Follower): void {
  const src = new EventSource(`${api.base}/api/recordings/${encodeURIComponent(rec.d.id)}/live?from=${rec.d.frames.length}`);
  src.addEventListener("open", () => on.recovered());
  src.addEventListener("state", (e) => {
    rec.became(JSON.parse(e.data));
    on.changed();
  });
  src.addEventListener("frame", (e) => {
    const x = JSON.parse(e.data);
    if (rec.take(x.row, api.toFrame(x.row.n, x.frame))) on.grown();
  });
  src.addEventListener("end", () => {
    src.close();
    on.over();
  });
  src.addEventListener("refused", (e) => {
    src.close();
    on.failed(new api.Refusal(403, JSON.parse(e.data).error));
  });
  src.addEventListener("error", () => {
    on.failed(new api.Refusal(0, "The connection to the recorder was lost. It is tried again."));
    if (src.readyState !== EventSource.CLOSED) return; // the browser tries by itself
    window.setTimeout(() => {
      api.detail(rec.d.id).then((d) => {
        rec.d = d;
        on.recovered();
        on.grown();
        on.changed();
        if (d.live) follow(rec, on);
        else on.over();
      }, (err) => on.failed(err));
    }, AGAIN);
  });
}
