// A sealed recording that the page opens itself. The identity stays in this object; what goes over the network is sealed.
//
//	heads ──> Opener (keys of epochs)
//	a frame, as it is needed ──> Opener ──> player
//	the whole file, once ──> Verifier and Opener ──> Transcriber ──> commands, marks, text, search

import * as api from "./api";
import { alone, FRAME, isBlock, Splitter } from "./blocks";
import { same, type Bytes } from "./bytes";
import { sha256 } from "./crypto";
import { fitting } from "./expression";
import { clock, revive, size, visible } from "./format";
import { parseIdentities } from "./identity";
import { Transcriber } from "./transcript";
import { Opener, type Head } from "./unseal";
import { Verifier, type Report } from "./verify";

const BY_ITSELF = 24 << 20; // larger ones are read whole when somebody asks for it

// Source is where the sealed bytes are.
export interface Source {
  heads(): Promise<Head[]>;
  block(n: number): Promise<Head>; // the n-th frame's; at is -1 where its place is not known
  all(): AsyncIterable<Bytes>;
  size(): number;
}

export class WrongKey extends Error {}

// Reading is what is known of a recording that was read from its first byte to its last.
export interface Reading { report: Report; transcript: api.Transcript; commands: Map<number, string> }

export class Opened {
  onprogress: (bytes: number) => void = () => {};
  onread: (r: Reading) => void = () => {};
  private wanted: boolean;
  private reading: { size: number; done: Promise<Reading> } | undefined;
  private sums = new Map<number, Bytes>(); // of the frames, as they were shown or read

  private constructor(private opener: Opener, private src: Source) {
    this.wanted = src.size() <= BY_ITSELF;
  }

  // with opens a recording, or says in words why not.
  static async with(text: string, src: Source, id: string): Promise<Opened> {
    const keys = await parseIdentities(text);
    const opener = await Opener.with(keys, await src.heads());
    if (opener.meta.id !== id) throw new Error("The recorder gave another recording than the one that was asked for.");
    if (!opener.some) throw new WrongKey(`This key opens nothing here. The recording is sealed to ${opener.to.map(visible).join(", ")}.`);
    return new Opened(opener, src);
  }

  // meta is what the recording says of itself.
  get meta(): any {
    return this.opener.meta;
  }

  get partly(): boolean {
    return !this.opener.all;
  }

  async frame(n: number): Promise<api.Frame> {
    return this.open(n, await this.src.block(n));
  }

  // open takes a frame that came by itself.
  async open(n: number, h: Head): Promise<api.Frame> {
    const b = alone(h.bytes, h.at, FRAME);
    if (!this.opener.known(b)) for (const k of (await this.src.heads()).slice(1)) await this.opener.add(k);
    await this.sameAsBefore(n, b.head, b.payload);
    return shown(await this.opener.frame(n, b));
  }

  // What is shown must be what was verified, whichever came first.
  private async sameAsBefore(n: number, head: Bytes, payload: Bytes): Promise<void> {
    const sum = await sha256(head, payload);
    const before = this.sums.get(n);
    if (before && !same(before, sum)) throw new Error("This part of the recording is not the one that was here before.");
    this.sums.set(n, sum);
  }

  // waits says how much there is to read, where that waits for somebody to ask for it.
  get waits(): number | undefined {
    return this.wanted ? undefined : this.src.size();
  }

  want(): void {
    this.wanted = true;
  }

  // read reads all there is, once.
  read(): Promise<Reading> {
    const now = this.src.size();
    if (this.reading?.size !== now) {
      const done = this.readAll();
      this.reading = { size: now, done };
      done.then(this.onread, () => (this.reading = undefined));
    }
    return this.reading!.done;
  }

  private async readAll(): Promise<Reading> {
    const s = new Splitter();
    const v = new Verifier(s);
    const t = new Transcriber();
    let bytes = 0;
    let n = 0;
    let end = 0;
    let turn = performance.now();
    for await (const chunk of this.src.all()) {
      for (const p of s.push(chunk)) {
        await v.take(p);
        if (isBlock(p) && p.type === FRAME) {
          end = p.last / 1e6;
          await this.sameAsBefore(n, p.head, p.payload);
          if (!this.opener.known(p)) for (const k of (await this.src.heads()).slice(1)) await this.opener.add(k);
          try {
            await t.take((await this.opener.frame(n, p)).events);
          } catch (err) {
            // The verifier has its own word on it; the text goes on with the next one.
            if (v.r.problems.length === 0) v.r.problems.push(`${clock(p.first / 1e6, true)}: ${err instanceof Error ? err.message : err}`);
          }
          n++;
        }
        if (performance.now() - turn > 30) {
          await new Promise((go) => setTimeout(go));
          turn = performance.now();
        }
      }
      bytes += chunk.length;
      this.onprogress(bytes);
    }
    for (const p of s.end()) await v.take(p);
    const report = v.finish();
    const transcript = JSON.parse(JSON.stringify(await t.done(end)), revive) as api.Transcript;
    return { report, transcript, commands: new Map([...t.opened].map(([ch, o]) => [ch, visible(String(o.command ?? ""))])) };
  }

  // answer is what the API would say, where it is not the recorder's to say.
  async answer(rest: string, q: URLSearchParams): Promise<any> {
    if (this.waits !== undefined) {
      if (rest === "search") throw new api.Refusal(409, `That needs all of the recording (${size(this.waits)}) read first; the button is above.`);
      return { commands: [], marks: [], lines: [], total: 0 };
    }
    const { transcript } = await this.read();
    return rest === "search" ? find(transcript, q.get("q") ?? "", q.get("re") === "1") : from(transcript, Number(q.get("from")) || 0);
  }
}

const LINES = 2000; // of a transcript in one answer

function from(t: api.Transcript, n: number): api.Transcript {
  return { ...t, commands: n === 0 ? t.commands : [], marks: n === 0 ? t.marks : [], lines: t.lines.slice(n, n + LINES) };
}

// find looks through the lines of a transcript, as the recorder does.
export async function find(t: { lines: api.TextLine[]; until?: number }, q: string, regex: boolean): Promise<{ lines: api.TextLine[]; more?: boolean; until?: number }> {
  let found: api.TextLine[];
  let until = t.until;
  if (regex) {
    const r = await fitting(q, t.lines.map((l) => l.text));
    found = r.found.map((i) => t.lines[i]);
    if (r.upTo !== undefined) until = t.lines[r.upTo].t;
  } else {
    const words = q.toLowerCase().replaceAll('"', " ").split(/\s+/).filter((w) => w);
    found = t.lines.filter((l) => words.every((w) => l.text.toLowerCase().includes(w)));
  }
  return { lines: found.slice(0, 1000), more: found.length > 1000, until };
}

// shown takes from what is JSON whatever text could hide; bytes go to the terminal as they are.
function shown(f: api.Frame): api.Frame {
  for (const e of f.events) if (e.j !== undefined) e.j = JSON.parse(JSON.stringify(e.j), revive);
  return f;
}

// claims are what the signed description says, whatever else was said of the recording.
export function claims(m: any): Partial<api.Detail> {
  const s = (x: unknown) => (typeof x === "string" ? visible(x) : "");
  return {
    id: s(m.id), start: s(m.start), host: s(m.host), src: s(m.src), who: s(m.login) || (Array.isArray(m.src_tags) ? m.src_tags.map(s).join(" ") : ""),
    local_user: s(m.local_user), uid: Number(m.uid) || 0, rule: s(m.rule), client: s(m.client), mesh: s(m.mesh), src_addr: s(m.src_addr),
    self_attested: m.self_attested === true,
  };
}
