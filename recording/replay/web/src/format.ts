// Times and sizes in words.

export function clock(seconds: number, tenths = false): string {
  const s = Math.max(0, seconds);
  const whole = Math.floor(s);
  const hh = Math.floor(whole / 3600);
  const mm = Math.floor(whole / 60) % 60;
  const ss = whole % 60;
  const two = (n: number) => String(n).padStart(2, "0");
  const head = hh > 0 ? `${hh}:${two(mm)}:${two(ss)}` : `${mm}:${two(ss)}`;
  return tenths ? `${head}.${Math.floor((s - whole) * 10)}` : head;
}

export function length(seconds: number): string {
  if (seconds < 1) return "under 1 s";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let n = bytes;
  let u = 0;
  while (n >= 1000 && u < units.length - 1) {
    n /= 1000;
    u++;
  }
  return `${u === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[u]}`;
}

export function when(iso: string, now = new Date()): string {
  const d = new Date(iso);
  const time = d.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  const day = (x: Date) => new Date(x.getFullYear(), x.getMonth(), x.getDate()).getTime();
  const days = Math.round((day(now) - day(d)) / 86_400_000);
  if (days === 0) return `today ${time}`;
  if (days === 1) return `yesterday ${time}`;
  const date = d.toLocaleDateString(undefined, { day: "numeric", month: "short", year: d.getFullYear() === now.getFullYear() ? undefined : "numeric" });
  return `${date} ${time}`;
}

export function wall(start: string, seconds: number): string {
  const d = new Date(new Date(start).getTime() + seconds * 1000);
  return d.toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function timeOfDay(start: string, seconds: number): string {
  return new Date(new Date(start).getTime() + seconds * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// visible turns control characters into pictures of themselves, so that text cannot hide or
// reorder itself.
export function visible(s: string): string {
  return s
    .replace(/\r\n/g, "\n")
    .replace(/[\x00-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\x7f/g, "\u2421")
    .replace(/[\u0080-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

// revive is for JSON.parse: whatever text comes from a recording, or from a name, is visible from here on.
export const revive = (_: string, v: unknown) => (typeof v === "string" ? visible(v) : v);
