// The viewer's API, as recording/replay serves it. Times are seconds since the start of the
// recording; bytes are base64.

import { revive } from "./format";

// base is what stands before every path; on loopback it is nobody else's to know.
export const base = (document.querySelector('script[src$="/assets/app.js"]')?.getAttribute("src") ?? "").replace(/\/assets\/app\.js$/, "");

export interface Exit { status: number; signal?: string }

export interface Summary {
  id: string;
  start: string;
  duration: number;
  host: string;
  src: string;
  who: string;
  local_user: string;
  type: string; // shell, exec, sftp or ""
  command?: string;
  channels: number;
  pty?: boolean; // its first channel has a terminal
  exit?: Exit;
  cause?: string;
  size: number;
  complete: boolean;
  live: boolean;
  mine: boolean;
  self_attested?: boolean;
  sealed?: boolean; // encrypted to recipients
  unsealed?: string; // why it is not as the policy asks
}

// Unrecorded is a session that runs and is not recorded.
export interface Unrecorded { id: string; start: string; host: string; src: string; who: string; local_user: string; mine: boolean; why?: string; may_end?: boolean }

export interface Channel {
  n: number;
  type: string;
  command?: string;
  pty?: boolean;
  cols?: number;
  rows?: number;
  opened: number;
  closed?: number;
  exit?: Exit;
}

export interface FrameInfo { n: number; first: number; last: number; bytes: number; events: number; keyframe: boolean }

export interface Detail extends Summary {
  viewer: Viewer;
  because?: string; // why the viewer may see it
  uid: number;
  rule: string;
  client: string;
  mesh: string;
  src_addr: string;
  channel_list: Channel[];
  may_end?: boolean; // whoever looks at it may end it
  may_delete?: boolean;
  watch_shown?: boolean; // it runs, and whoever watches is shown to the person
  watchers?: { who: string; node?: string; since: string; you?: boolean }[]; // of one that runs
  frames: FrameInfo[];
  problems?: string[];
  locked?: boolean; // sealed, and no key of the recorder opens it
  sealed_to?: string[];
}

export interface Keyframe { channel: number; cols: number; rows: number; data: Uint8Array }

export interface Happening {
  t: number;
  ch: number;
  k: string;
  data?: Uint8Array;
  j?: any;
}

export interface Frame { n: number; keyframes: Keyframe[]; events: Happening[] }

export interface Viewer { who: string; node: string }
export interface Page { viewer: Viewer; recordings: Summary[]; next?: string; sealed?: number; unrecorded?: Unrecorded[] }

// Refusal is an answer the person should read.
export class Refusal extends Error {
  constructor(readonly status: number, words: string) {
    super(words);
  }
}

// offline answers where there is no recorder: in a page that was shared.
let offline: ((path: string) => any) | undefined;

export function answerFrom(fn: (path: string) => any): void {
  offline = fn;
}

export const isOffline = () => offline !== undefined;

// here answers for one recording that the page opened with a key; undefined leaves it to the recorder.
let here: ((path: string) => any) | undefined;

export function openedHere(fn: (path: string) => any): void {
  here = fn;
}

async function get(path: string, signal?: AbortSignal): Promise<any> {
  const mine = here?.(path.slice(base.length));
  if (mine !== undefined) return mine;
  if (offline) return offline(path.slice(base.length));
  return ask(path, { headers: { Accept: "application/json" }, signal });
}

async function ask(path: string, what: RequestInit): Promise<any> {
  return JSON.parse(await (await answered(path, what)).text(), revive);
}

// bytes asks for what is not JSON.
export function bytes(path: string): Promise<Response> {
  return answered(base + path, {});
}

async function answered(path: string, what: RequestInit): Promise<Response> {
  const signal = what.signal;
  let res: Response;
  try {
    res = await fetch(path, { ...what, credentials: "same-origin" });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new Refusal(0, "The recorder cannot be reached. Check the connection and try again.");
  }
  if (!res.ok) {
    let words = "";
    try {
      words = (await res.json()).error;
    } catch {
      // Not an answer of ours; the status has to do.
    }
    throw new Refusal(res.status, words || `The recorder answered ${res.status}.`);
  }
  return res;
}

export function list(q: { text: string; own: boolean; before?: string }, signal?: AbortSignal): Promise<Page> {
  const p = new URLSearchParams();
  if (q.text) p.set("q", q.text);
  if (q.own) p.set("own", "1");
  if (q.before) p.set("before", q.before);
  return get(`${base}/api/recordings?${p}`, signal);
}

// passes says whether an answer may be another one soon: the recorder or the way to it is away, or it is asked for too much.
export const passes = (err: unknown) => err instanceof Refusal && (err.status === 0 || err.status === 429 || err.status >= 500);

export function detail(id: string, from = 0): Promise<Detail> {
  return get(`${base}/api/recordings/${encodeURIComponent(id)}${from > 0 ? `?from=${from}` : ""}`);
}

// act ends the session, or deletes its recording.
export async function act(what: "end" | "delete", id: string, reason: string): Promise<void> {
  await ask(`${base}/api/recordings/${encodeURIComponent(id)}/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ reason }) });
}

export async function frame(id: string, n: number): Promise<Frame> {
  const mine = (here ?? offline)?.(`/api/recordings/${encodeURIComponent(id)}/frames/${n}`);
  if (mine !== undefined) return mine;
  const f = await get(`${base}/api/recordings/${encodeURIComponent(id)}/frames/${n}`);
  return toFrame(n, f);
}

export function toFrame(n: number, f: any): Frame {
  return {
    n,
    keyframes: (f.keyframes ?? []).map((k: any) => ({ channel: k.channel, cols: k.cols, rows: k.rows, data: unbase(k.data) })),
    events: (f.events ?? []).map((e: any) => ({ t: e.t, ch: e.ch, k: e.k, j: e.j, data: e.d === undefined ? undefined : unbase(e.d) })),
  };
}

export interface TextLine { ch: number; t: number; text: string; command: number; stderr?: boolean }
export interface Command { ch: number; t: number; end?: number; text: string; source: string; exit?: number; signal?: string }
export interface Mark { ch: number; t: number; end?: number; kind: string; text: string; failed?: boolean }
export interface Transcript { commands: Command[]; marks: Mark[]; lines: TextLine[]; total: number; until?: number }
export interface Hit extends Summary { lines: TextLine[]; more?: boolean; indexed_until?: number }
export interface Partial { recordings: number; hosts: string[]; more?: boolean }
export interface Run { s: string; w: number; f?: number; b?: number; r?: boolean; d?: boolean } // text, columns, colours, turned round, bold
export interface LastScreen { cols: number; rows: number; lines: string[]; paint: Run[][] }

export function transcript(id: string, from: number): Promise<Transcript> {
  return get(`${base}/api/recordings/${encodeURIComponent(id)}/transcript?from=${from}`);
}

export function searchIn(id: string, q: string, regex: boolean): Promise<{ lines: TextLine[]; more?: boolean; until?: number }> {
  const p = new URLSearchParams({ q });
  if (regex) p.set("re", "1");
  return get(`${base}/api/recordings/${encodeURIComponent(id)}/search?${p}`);
}

export function search(q: string, before?: string): Promise<{ viewer: Viewer; recordings: Hit[]; partial?: Partial; next?: string }> {
  const p = new URLSearchParams({ q });
  if (before) p.set("before", before);
  return get(`${base}/api/search?${p}`);
}

// exported says before a file is made of what the page shows that it will be. A page that was shared has nobody to tell.
export async function exported(id: string, as: string, channel: number, from: number, until: number): Promise<void> {
  if (offline) return;
  await ask(`${base}/api/recordings/${encodeURIComponent(id)}/exported?${new URLSearchParams({ as, channel: String(channel), from: String(from), until: String(until) })}`, {});
}

export function screen(id: string): Promise<LastScreen> {
  return get(`${base}/api/recordings/${encodeURIComponent(id)}/screen`);
}

function unbase(base64: string): Uint8Array {
  const s = atob(base64);
  const b = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) b[i] = s.charCodeAt(i);
  return b;
}
