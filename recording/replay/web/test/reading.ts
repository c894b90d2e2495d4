// What the page reads in a sealed recording, for a test to hold against what the Go programs read in it.
import { Opened, type Source } from "../src/opened";
import { base64 } from "../src/bytes";
import { Tsr } from "../src/tsr";

Object.assign(globalThis, {
  async reading(file: string, key: string, id: string) {
    const tsr = new Tsr(base64(file));
    const src: Source = {
      heads: async () => tsr.heads, block: async (n) => tsr.block(n), size: () => tsr.file.length,
      async *all() {
        for (let at = 0; at < tsr.file.length; at += 7777) yield tsr.file.slice(at, at + 7777);
      },
    };
    const o = await Opened.with(key, src, id);
    const r = await o.read();
    const frames = [];
    for (let n = tsr.index.length - 1; n >= 0; n--) { // backwards: keys only go forward
      const f = await o.frame(n);
      frames.unshift({ n, screens: f.keyframes.length, events: f.events.map((e) => ({ t: e.t, ch: e.ch, k: e.k, d: e.data && btoa(String.fromCharCode(...e.data)), j: e.j })) });
    }
    return { transcript: r.transcript, problems: r.report.problems, proven: r.report.proven, complete: r.report.complete, partly: o.partly, commands: [...r.commands], frames };
  },
});
