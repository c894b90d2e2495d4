// Bytes: what the readers of recordings need of them.

export type Bytes = Uint8Array<ArrayBuffer>;

export function join(parts: Uint8Array[]): Bytes {
  const b = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    b.set(p, at);
    at += p.length;
  }
  return b;
}

export const same = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((x, i) => x === b[i]);
export const view = (b: Uint8Array) => new DataView(b.buffer, b.byteOffset, b.byteLength);
export const latin = (b: Uint8Array) => String.fromCharCode(...b);
export const ascii = (s: string): Bytes => Uint8Array.from(s, (c) => c.charCodeAt(0));
export const hex = (b: Uint8Array) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
export const unhex = (s: string): Bytes => Uint8Array.from(s.match(/../g)!, (x) => parseInt(x, 16));

export function le64(n: number): Bytes {
  const b = new Uint8Array(8);
  view(b).setBigInt64(0, BigInt(Number.isSafeInteger(n) ? n : 0), true);
  return b;
}

export function base64(s: string): Bytes {
  try {
    return Uint8Array.from(atob(s.trim()), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array(0);
  }
}

let table: Uint32Array | undefined;

export function crc32c(b: Uint8Array): number {
  if (!table) {
    table = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      let c = i;
      for (let j = 0; j < 8; j++) c = c & 1 ? 0x82f63b78 ^ (c >>> 1) : c >>> 1;
      table[i] = c >>> 0;
    }
  }
  let c = ~0;
  for (const x of b) c = table[(c ^ x) & 255] ^ (c >>> 8);
  return ~c >>> 0;
}
