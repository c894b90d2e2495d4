// Identities: what opens age files. They are read from what a person pastes or chooses, and are in memory alone.

import { Decrypter, type Identity } from "age-encryption";
// The library falls back from the browser's X25519 where the browser says that it has none, but not where a page over
// plain http has no cryptography at all; this tells it so. It is not among its exports.
import { forceWebCryptoOff } from "../node_modules/age-encryption/dist/x25519.js";
import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { ascii, base64, join, same, view, type Bytes } from "./bytes";
import { own } from "./crypto";

// BadIdentity says in words why a text is no identity. It never has the text in it.
export class BadIdentity extends Error {}

const MOST = 64; // identities in one file

// Keys open age files.
export class Keys {
  constructor(private ids: (string | Identity)[]) {}

  // open gives what the file holds, or undefined if it is for others.
  async open(file: Bytes): Promise<Bytes | undefined> {
    const d = new Decrypter();
    for (const id of this.ids) d.addIdentity(id);
    try {
      return (await d.decrypt(file)) as Bytes;
    } catch (err) {
      if (err instanceof Error && /no identity matched/.test(err.message)) return undefined;
      throw new Error("A key in this recording cannot be opened: it is not what it should be.");
    }
  }
}

// parseIdentities reads an age identity file, one a line, or an OpenSSH private key of type ed25519 without a passphrase.
export async function parseIdentities(text: string): Promise<Keys> {
  if (!own) forceWebCryptoOff(true);
  const t = text.trim();
  if (t === "") throw new BadIdentity("Paste an identity, or choose the file it is in.");
  if (t.startsWith("-----BEGIN OPENSSH PRIVATE KEY-----")) return new Keys([new SshIdentity(t)]);
  if (t.startsWith("age-encryption.org/") || t.includes("BEGIN AGE ENCRYPTED FILE")) throw new BadIdentity("This file is itself encrypted; decrypt it first with age -d.");
  if (t.startsWith("-----BEGIN")) throw new BadIdentity("Of other kinds of key this page opens ssh-ed25519 private keys in OpenSSH's own form alone.");
  if (/^age1|^ssh-ed25519 /m.test(t) && !t.includes("AGE-SECRET-KEY-")) throw new BadIdentity("This is a recipient, to whom things are sealed. What opens them is the identity, AGE-SECRET-KEY-\u2026");
  const lines = t.split(/\r?\n/).map((l) => l.trim()).filter((l) => l && !l.startsWith("#"));
  const no = new BadIdentity("This is neither AGE-SECRET-KEY- lines nor an ssh-ed25519 private key; look whether all of it is there.");
  if (lines.length === 0 || lines.length > MOST) throw no;
  const d = new Decrypter();
  for (const l of lines) {
    if (!/^AGE-SECRET-KEY-(PQ-)?1/.test(l)) throw no;
    try {
      d.addIdentity(l);
    } catch {
      throw no; // the library's words may quote it
    }
  }
  return new Keys(lines);
}

// SshIdentity opens what is for an ssh-ed25519 key, as age's agessh does: the stanza "ssh-ed25519 TAG SHARE" holds the
// file key under ChaCha20-Poly1305.
class SshIdentity implements Identity {
  private secret: Uint8Array;
  private ours: Uint8Array; // as a point of X25519
  private wire: Bytes; // the public key as SSH has it

  constructor(pem: string) {
    const seed = sshSeed(pem);
    const pub = ed25519.getPublicKey(seed);
    this.wire = sshString(ascii("ssh-ed25519"), pub);
    this.secret = sha512(seed).slice(0, 32);
    this.ours = x25519.getPublicKey(this.secret);
  }

  unwrapFileKey(stanzas: { args: string[]; body: Uint8Array }[]): Uint8Array | null {
    const tag = sha256(this.wire).slice(0, 4);
    for (const s of stanzas) {
      if (s.args[0] !== "ssh-ed25519" || s.args.length !== 3 || !same(base64(s.args[1]), tag)) continue;
      const share = base64(s.args[2]);
      if (share.length !== 32 || s.body.length !== 32) throw new Error("stanza");
      const label = ascii("age-encryption.org/v1/ssh-ed25519");
      const tweak = hkdf(sha256, new Uint8Array(0), this.wire, label, 32);
      const shared = x25519.scalarMult(tweak, x25519.scalarMult(this.secret, share));
      const key = hkdf(sha256, shared, join([share, this.ours]), label, 32);
      try {
        return chacha20poly1305(key, new Uint8Array(12)).decrypt(s.body);
      } catch {
        continue; // another key with the same tag
      }
    }
    return null;
  }
}

function sshString(...parts: Uint8Array[]): Bytes {
  return join(parts.flatMap((p) => {
    const n = new Uint8Array(4);
    view(n).setUint32(0, p.length);
    return [n, p];
  }));
}

// sshSeed takes the seed out of an OpenSSH private key (PROTOCOL.key).
function sshSeed(pem: string): Bytes {
  const bad = new BadIdentity("This ssh key cannot be read; look whether all of it is there.");
  const m = /^-----BEGIN OPENSSH PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END OPENSSH PRIVATE KEY-----$/.exec(pem);
  if (!m) throw bad;
  const b = base64(m[1].replace(/\s+/g, ""));
  const magic = ascii("openssh-key-v1\0");
  if (!same(b.subarray(0, magic.length), magic)) throw bad;
  let at = magic.length;
  let from = b;
  const number = () => {
    if (at + 4 > from.length) throw bad;
    at += 4;
    return view(from).getUint32(at - 4);
  };
  const string = () => {
    const n = number();
    if (n > from.length - at) throw bad;
    at += n;
    return from.slice(at - n, at);
  };
  const word = (x: Bytes) => new TextDecoder().decode(x);
  if (word(string()) !== "none") throw new BadIdentity("This ssh key has a passphrase, which this page cannot take off. Do so on a copy (ssh-keygen -p), or use tssh play --identity, which asks for it.");
  string(); // key derivation
  string(); // its options
  if (number() !== 1) throw bad;
  string(); // the public key
  from = string();
  at = 0;
  if (number() !== number()) throw bad;
  if (word(string()) !== "ssh-ed25519") throw new BadIdentity("This ssh key is not of type ed25519.");
  const pub = string();
  const secret = string();
  if (secret.length !== 64 || !same(secret.subarray(32), pub) || !same(ed25519.getPublicKey(secret.slice(0, 32)), pub)) throw bad;
  return secret.slice(0, 32);
}
