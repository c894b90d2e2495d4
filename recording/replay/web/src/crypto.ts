// Hashes, signatures and ciphers. A browser gives its own to pages from a file, from loopback and over TLS; over the mesh
// the page is plain http, and the same comes from the noble library, which age-encryption is built on.

import { gcm } from "@noble/ciphers/aes.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha256 as soft } from "@noble/hashes/sha2.js";
import { hex, join, unhex, type Bytes } from "./bytes";

const subtle = globalThis.crypto?.subtle as SubtleCrypto | undefined;

export const own = subtle !== undefined; // the browser's own

// sha256now is for what is small and many.
export const sha256now = (b: Uint8Array): Bytes => soft(b) as Bytes;

export async function sha256(...parts: Uint8Array[]): Promise<Bytes> {
  const b = join(parts);
  return subtle ? new Uint8Array(await subtle.digest("SHA-256", b)) : sha256now(b);
}

// openGcm gives what AES-256-GCM sealed, or throws.
export async function openGcm(key: Bytes, nonce: Bytes, data: Bytes, about: Bytes): Promise<Bytes> {
  if (!subtle) return gcm(key, nonce, about).decrypt(data) as Bytes;
  const k = await subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv: nonce, additionalData: about }, k, data));
}

// Points of small order: anybody can make up a signature "by" one of these.
const WEAK = new Set([
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]);

export type Verify = (key: Bytes, signature: Bytes, ...message: Uint8Array[]) => Promise<boolean>;

// verifier gives what checks signatures (Ed25519).
export async function verifier(): Promise<Verify> {
  const fast = await native();
  return async (key, signature, ...message) => {
    if (key.length !== 32 || signature.length !== 64) return false;
    const plain = key.slice();
    plain[31] &= 0x7f;
    if (WEAK.has(hex(plain))) return false;
    try {
      return await (fast ?? bundled)(key, signature, join(message));
    } catch {
      return false; // not a point
    }
  };
}

type Plain = (key: Bytes, signature: Bytes, message: Bytes) => Promise<boolean>;

const bundled: Plain = async (key, signature, message) => ed25519.verify(signature, message, key, { zip215: false });

// native is the browser's own, where it has one.
async function native(): Promise<Plain | undefined> {
  if (!subtle) return undefined;
  const check: Plain = async (key, signature, message) => subtle.verify({ name: "Ed25519" }, await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]), signature, message);
  try {
    // RFC 8032, 7.1, test 1: a browser that only claims to know Ed25519 shows here.
    const ok = await check(unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"),
      unhex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"), new Uint8Array(0));
    return ok ? check : undefined;
  } catch {
    return undefined;
  }
}
