// Hashes and signatures: by the browser's Web Crypto where it is there and knows Ed25519, else by a library. A browser has no Web
// Crypto on plain http to another host.
//
// A signature is accepted exactly as verify/SPEC.md §5 says, by either: encodings are canonical, no point is of small order, S is
// below the group's order, and the equation is the one without cofactor.
import { ed25519 } from "@noble/curves/ed25519.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";

const { Point } = ed25519;
const ORDER = Point.Fn.ORDER;

/** Byte strings, one after the other. */
export function joined(...parts) {
  const found = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    found.set(part, at);
    at += part.length;
  }
  return found;
}

/** The point of 32 bytes, or null: no point, not its canonical encoding, or of small order. */
function point(bytes) {
  try {
    const found = Point.fromBytes(bytes, false);
    return found.isSmallOrder() ? null : found;
  } catch {
    return null;
  }
}

function littleEndian(bytes) {
  return bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
}

/** Whether these 32 bytes can be a key (verify/SPEC.md §5). */
export const isPublicKey = (bytes) => bytes.length === 32 && point(bytes) !== null;

/**
 * SHA-256 and Ed25519. `subtle` is the browser's SubtleCrypto, or nothing; `name` says which of the two is at work.
 */
export async function makeCrypto(subtle = globalThis.crypto?.subtle) {
  const native = await knowsEd25519(subtle);
  return {
    name: native ? "this browser's Web Crypto" : "a library in this page, since this browser offers no Web Crypto for it here",
    async sha256(...parts) {
      const data = joined(...parts);
      return native ? new Uint8Array(await subtle.digest("SHA-256", data)) : sha256(data);
    },
    /** Whether `signature` is the key's over `message` (RFC 8032 §5.1.7). */
    async verifies(key, message, signature) {
      if (key.length !== 32 || signature.length !== 64) return false;
      const r = signature.subarray(0, 32);
      const s = littleEndian(signature.subarray(32));
      const [a, at] = [point(key), point(r)];
      if (a === null || at === null || s >= ORDER) return false;
      // Implementations differ on points outside the group of prime order, which no honest signer makes: those by the equation itself
      if (native && a.isTorsionFree() && at.isTorsionFree()) {
        const known = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
        return subtle.verify({ name: "Ed25519" }, known, signature, message);
      }
      const k = littleEndian(sha512(joined(r, key, message))) % ORDER;
      // All of it is public, so that nothing has to take the same time always
      return Point.BASE.multiplyUnsafe(s).equals(at.add(a.multiplyUnsafe(k)));
    },
  };
}

async function knowsEd25519(subtle) {
  if (!subtle) return false;
  try {
    await subtle.importKey("raw", Point.BASE.toBytes(), { name: "Ed25519" }, false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}
