// The log's formats, read strictly, and its proofs (verify/SPEC.md, whose paragraphs are named below). What is not exactly as it says
// is refused with NotVerified: what is wrong, where, what it says, and what was expected.
//
// Positions and sizes are BigInt. Nothing here touches the page, the network or the browser's storage.
import { isPublicKey } from "./signatures.js";

const LARGEST = 2n ** 63n;
const DEEPEST = 64;
const LEAF_LIMIT = 8192;
const NOTE_LIMIT = 1024 * 1024;
const SIGNATURE_LINES = 256;
const LONGEST_PROOF = 64;
const ED25519 = 1;
const PROOF_HEADER = "c2sp.org/tlog-proof@v1";
const COMMITMENT = new TextEncoder().encode("redflag/commitment/v1\0");

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const TIME = /^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z$/;
const HASH = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;
const REQUIRED = ["v", "id", "kind", "actor_kind", "created_at", "executed_at", "result", "commitments"];
const IDS = ["id", "command_id", "agent_id"];
const TIMES = ["created_at", "executed_at", "sent_at", "completed_at"];
const INTEGERS = ["version", "exit_code", "duration_seconds"];
const TEXTS = ["kind", "actor_kind", "result", "command_type", "action"];
const ALLOWED = new Set([...REQUIRED, ...IDS, ...TIMES, ...INTEGERS, ...TEXTS]);
const COMMITTED = new Set(["actor", "message", "params", "stdout", "stderr", "address", "metadata"]);

const utf8 = new TextEncoder();

/** Something is not what it has to be. */
export class NotVerified extends Error {
  constructor(what, where = "", says = null, expected = null) {
    super(what);
    Object.assign(this, { what, where, says, expected });
  }
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
export const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);
const has = (object, name) => Object.hasOwn(object, name);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function text(bytes, where) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new NotVerified("this is no UTF-8", where);
  }
}

/** The bytes of base64 in its one canonical spelling (§1). */
export function unbase64(said, where, length = null) {
  let found;
  try {
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(said)) throw new SyntaxError();
    found = Uint8Array.from(atob(said), (one) => one.charCodeAt(0));
  } catch {
    throw new NotVerified("this is no base64", where, said);
  }
  if (base64(found) !== said) throw new NotVerified("this is not how base64 spells it", where, said, base64(found));
  if (length !== null && found.length !== length) throw new NotVerified(`this has ${found.length} bytes`, where, said, `${length} bytes`);
  return found;
}

/** A number in decimal digits without a leading zero, below 2^63 (§1). */
export function decimal(said, where) {
  if (!/^(?:0|[1-9][0-9]{0,18})$/.test(said) || BigInt(said) >= LARGEST) {
    throw new NotVerified("this is no number as the format wants it", where, said, "decimal digits, no leading zero");
  }
  return BigInt(said);
}

/** The canonical JSON of a value (§2). Throws NotVerified for what has none: other numbers than safe integers, a lone surrogate. */
export function canonical(value, where = "", depth = 0) {
  if (depth > DEEPEST) throw new NotVerified(`its JSON is nested deeper than ${DEEPEST} levels`, where);
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw new NotVerified("a number is no integer up to 2^53 - 1", where, String(value), "a string");
    return String(value);
  }
  if (typeof value === "string") {
    if (/\p{Surrogate}/u.test(value)) throw new NotVerified("a text has half a character in it (a lone surrogate)", where);
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, where, depth + 1)).join(",")}]`;
  // Names in the order of their UTF-16 code units, which is how JavaScript sorts
  const members = Object.keys(value).sort().map((name) => `${canonical(name, where, depth)}:${canonical(value[name], where, depth + 1)}`);
  return `{${members.join(",")}}`;
}

/** The value of canonical JSON. Whatever is spelled otherwise (a name twice, spaces, escapes, order, 1.0) is refused (§2). */
export function parseCanonical(bytes, where) {
  const said = text(bytes, where);
  let value;
  try {
    value = JSON.parse(said);
  } catch {
    throw new NotVerified("this is no JSON", where, said.slice(0, 200));
  }
  const again = canonical(value, where);
  if (again !== said) {
    let at = 0;
    while (at < said.length && said[at] === again[at]) at += 1;
    const around = (whole) => whole.slice(Math.max(0, at - 30), at + 30);
    throw new NotVerified("its JSON is not canonical (RFC 8785)", where, around(said), around(again));
  }
  return value;
}

// Leaves (§3) and commitments (§4)

function malformed(name, value) {
  if (IDS.includes(name)) return typeof value === "string" && UUID.test(value) ? "" : "a UUID in lower case";
  if (TIMES.includes(name)) return typeof value === "string" && TIME.test(value) ? "" : "a UTC time with microseconds and Z";
  if (INTEGERS.includes(name)) return Number.isSafeInteger(value) ? "" : "an integer up to 2^53 - 1";
  if (TEXTS.includes(name)) return typeof value === "string" ? "" : "a string";
  return "";
}

/** A leaf of version 1: canonical, complete, and with nothing in it that version 1 does not have (§3). */
export function readLeaf(bytes, where) {
  if (bytes.length > LEAF_LIMIT) throw new NotVerified(`the leaf has ${bytes.length} bytes`, where, null, `at most ${LEAF_LIMIT}`);
  const leaf = parseCanonical(bytes, where);
  if (!isObject(leaf)) throw new NotVerified("the leaf is no JSON object", where);
  if (leaf.v !== 1) throw new NotVerified("the leaf is of a version that this verifier does not know", where, canonical(leaf.v ?? null), "1");
  const names = Object.keys(leaf);
  const other = names.filter((name) => !ALLOWED.has(name));
  const missing = REQUIRED.filter((name) => !has(leaf, name));
  if (other.length || missing.length) {
    throw new NotVerified("the leaf has other members than version 1", where, other.join(", "), missing.join(", "));
  }
  for (const name of names) {
    const expected = malformed(name, leaf[name]);
    if (expected) throw new NotVerified(`the leaf's ${name} is malformed`, where, canonical(leaf[name]), expected);
  }
  const { commitments } = leaf;
  if (!isObject(commitments) || !Object.keys(commitments).every((name) => COMMITTED.has(name))) {
    throw new NotVerified("the leaf commits to what no record has", where, canonical(commitments), [...COMMITTED].sort().join(", "));
  }
  for (const [name, value] of Object.entries(commitments)) {
    if (typeof value !== "string" || !HASH.test(value)) throw new NotVerified(`the commitment to ${name} is no base64 of 32 bytes`, where, canonical(value));
  }
  if (has(leaf, "version") && (leaf.version < 1 || leaf.version >= 2 ** 31)) {
    throw new NotVerified("the command's version is out of range", where, String(leaf.version), "1 or more");
  }
  if (leaf.kind === "transition" && !(has(leaf, "command_id") && has(leaf, "version"))) {
    throw new NotVerified("a transition names no command and version", where);
  }
  return leaf;
}

/** The hash of a leaf (RFC 6962 §2.1). */
export const leafHash = (crypto, leaf) => crypto.sha256(Uint8Array.of(0), leaf);
const nodeHash = (crypto, left, right) => crypto.sha256(Uint8Array.of(1), left, right);

/** The commitment to a value under its salt, as a leaf has it (§4). */
export async function commitment(crypto, salt, value, where = "") {
  return base64(await crypto.sha256(COMMITMENT, salt, utf8.encode(canonical(value, where))));
}

/** Recomputes the commitment to each disclosed value (§4). Returns the fields, sorted. */
export async function checkDisclosed(crypto, leaf, salts, values, where) {
  if (!isObject(salts) || !isObject(values) || canonical(Object.keys(salts).sort()) !== canonical(Object.keys(values).sort())) {
    throw new NotVerified("salts and values are not of the same fields", where);
  }
  for (const name of Object.keys(values).sort()) {
    const place = `${where}, ${name}`;
    if (!has(leaf.commitments, name)) throw new NotVerified("a value is shown that the leaf does not commit to", place);
    if (typeof salts[name] !== "string") throw new NotVerified("the salt is no string", place);
    const found = await commitment(crypto, unbase64(salts[name], `${place}, its salt`, 32), values[name], place);
    if (found !== leaf.commitments[name]) {
      throw new NotVerified("the value shown is not the one that was recorded: its commitment differs", place, found, leaf.commitments[name]);
    }
  }
  if (has(values, "actor") && (typeof values.actor !== "string" || values.actor.split(":")[0] !== leaf.actor_kind)) {
    throw new NotVerified("the actor is not of the kind that the leaf names", where, canonical(values.actor), leaf.actor_kind);
  }
  return Object.keys(values).sort();
}

/**
 * That a record as a page shows it is the one of a leaf whose proof was verified: the leaf is made anew from what is shown (`plain`,
 * its members that are no commitments, and `values`) and compared byte by byte. A value that was erased is neither shown nor disclosed.
 */
export async function checkShown(crypto, shown, proof, where = "the record on this page") {
  const commitments = { ...proof.leaf.commitments };
  for (const [name, value] of Object.entries(shown.values)) {
    if (!has(proof.salts, name)) throw new NotVerified(`the page shows ${name}, and the proof discloses none`, where);
    commitments[name] = await commitment(crypto, unbase64(proof.salts[name], where, 32), value, where);
  }
  const missing = Object.keys(proof.values).filter((name) => !has(shown.values, name));
  if (missing.length) throw new NotVerified(`the page does not show ${missing.join(", ")}, which was recorded`, where);
  const made = canonical({ ...shown.plain, commitments }, where);
  if (made === canonical(proof.leaf)) return;
  for (const name of new Set([...Object.keys(shown.plain), ...Object.keys(proof.leaf)])) {
    if (name === "commitments") continue;
    const [said, logged] = [shown.plain, proof.leaf].map((from) => (has(from, name) ? canonical(from[name]) : "nothing"));
    if (said !== logged) throw new NotVerified(`the page shows another ${name} than the log has`, where, said, logged);
  }
  const other = Object.keys(commitments).find((name) => commitments[name] !== proof.leaf.commitments[name]);
  throw new NotVerified(`the page shows another ${other} than was recorded: its commitment differs`, where, commitments[other], proof.leaf.commitments[other]);
}

// The tree

/** Whether the leaf hash stands at `index` of the tree with that size and root (RFC 9162 §2.1.3.2). */
export async function verifyInclusion(crypto, leaf, index, size, proof, root) {
  if (index < 0n || index >= size) return false;
  let [fn, sn, r] = [index, size - 1n, leaf];
  for (const sibling of proof) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      r = await nodeHash(crypto, sibling, r);
      while (!(fn & 1n) && fn) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else {
      r = await nodeHash(crypto, r, sibling);
    }
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  return sn === 0n && same(r, root);
}

/** Whether the tree of `size` begins with the one of `old` (RFC 9162 §2.1.4.2). */
export async function verifyConsistency(crypto, old, oldRoot, size, root, proof) {
  if (old < 0n || old > size) return false;
  if (old === 0n || old === size) return proof.length === 0 && same(oldRoot, old === size ? root : await crypto.sha256());
  const hashes = (old & (old - 1n)) === 0n ? [oldRoot, ...proof] : [...proof];
  if (!hashes.length) return false;
  let [fn, sn] = [old - 1n, size - 1n];
  while (fn & 1n) [fn, sn] = [fn >> 1n, sn >> 1n];
  let [fr, sr] = [hashes[0], hashes[0]];
  for (const sibling of hashes.slice(1)) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      [fr, sr] = [await nodeHash(crypto, sibling, fr), await nodeHash(crypto, sibling, sr)];
      while (!(fn & 1n) && fn) [fn, sn] = [fn >> 1n, sn >> 1n];
    } else {
      sr = await nodeHash(crypto, sr, sibling);
    }
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  return sn === 0n && same(fr, oldRoot) && same(sr, root);
}

// Keys, notes, checkpoints (§6)

const isName = (name) => name !== "" && !/[+\p{White_Space}]/u.test(name);
const keyId = async (crypto, name, kind, bytes) => (await crypto.sha256(utf8.encode(`${name}\n`), Uint8Array.of(kind), bytes)).subarray(0, 4);

/** A log's public key under a name. */
export async function keyOf(crypto, name, bytes) {
  return { name, bytes, id: await keyId(crypto, name, ED25519, bytes), fingerprint: hex(await crypto.sha256(bytes)) };
}

/** A log's key from its vkey: name+id+base64. Throws NotVerified. */
export async function parseKey(crypto, vkey) {
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/s.exec(vkey.trim()) ?? [];
  if (name === undefined || !isName(name)) throw new NotVerified("this is no verifier key: name+id+base64 is expected", "key", vkey.slice(0, 100));
  const material = unbase64(encoded, "key", 33);
  if (material[0] !== ED25519) throw new NotVerified("this is no key of a log (type 01)", "key", hex(material.subarray(0, 1)), "01");
  const key = await keyOf(crypto, name, material.subarray(1));
  if (hex(key.id) !== id) throw new NotVerified("the key does not agree with itself", "key", id, hex(key.id));
  if (!isPublicKey(key.bytes)) throw new NotVerified("this is no Ed25519 public key", "key", hex(key.bytes));
  return key;
}

/** A note, taken apart. Nothing of it is trusted yet. */
export function parseNote(bytes, where) {
  if (bytes.length > NOTE_LIMIT) throw new NotVerified(`the note has ${bytes.length} bytes`, where, null, `at most ${NOTE_LIMIT}`);
  const note = text(bytes, where);
  if (/[\u0000-\u0009\u000b-\u001f]/.test(note)) throw new NotVerified("the note holds control characters", where);
  const blank = note.lastIndexOf("\n\n");
  if (blank < 0 || !note.endsWith("\n") || blank + 2 === note.length) {
    throw new NotVerified("this is no signed note: text, an empty line, signature lines", where, note.slice(0, 200));
  }
  const lines = note.slice(blank + 2, -1).split("\n");
  if (lines.length > SIGNATURE_LINES) throw new NotVerified(`the note has ${lines.length} signatures`, where, null, `at most ${SIGNATURE_LINES}`);
  const signatures = lines.map((line) => {
    const parts = line.split(" ");
    if (parts.length !== 3 || parts[0] !== "\u2014" || !isName(parts[1])) throw new NotVerified("a signature line is malformed", where, line);
    const signature = unbase64(parts[2], `${where}, signature of ${parts[1]}`);
    if (signature.length < 5) throw new NotVerified("a signature line is malformed", where, line);
    return { name: parts[1], id: signature.subarray(0, 4), signature: signature.subarray(4) };
  });
  return { text: note.slice(0, blank + 1), signatures };
}

async function checkSigned(crypto, note, key, where) {
  let found = false;
  for (const { name, id, signature } of note.signatures) {
    if (name !== key.name || !same(id, key.id)) continue;
    if (!(await crypto.verifies(key.bytes, utf8.encode(note.text), signature))) throw new NotVerified(`the signature of ${key.name} is wrong`, where);
    found = true;
  }
  if (!found) {
    const signers = note.signatures.map(({ name, id }) => `${name} ${hex(id)}`).join(", ");
    throw new NotVerified("it is not signed by the key that was given", where, signers, `${key.name} ${hex(key.id)}`);
  }
}

/** A checkpoint that the key signed. `previous` are the logs from which it says that it goes on, name to size. */
export async function openCheckpoint(crypto, bytes, key, where = "checkpoint") {
  const note = parseNote(bytes, where);
  await checkSigned(crypto, note, key, where);
  const lines = note.text.slice(0, -1).split("\n");
  if (lines.length < 3 || lines.includes("")) throw new NotVerified("its text is no checkpoint: origin, size and root are expected", where, note.text);
  if (lines[0] !== key.name) throw new NotVerified("the checkpoint is of another log", where, lines[0], key.name);
  const size = decimal(lines[1], `${where}, size`);
  const root = unbase64(lines[2], `${where}, root`, 32);
  if (size === 0n && !same(root, await crypto.sha256())) throw new NotVerified("an empty tree has another root", where, hex(root));
  const previous = new Map();
  for (const line of lines.slice(3)) {
    const words = line.split(" ");
    if (words.length !== 4 || words[0] !== "previous" || !isName(words[1])) continue;
    try {
      unbase64(words[3], where, 32);
      previous.set(words[1], decimal(words[2], where));
    } catch {
      // a line that is malformed has no meaning
    }
  }
  const others = note.signatures.filter(({ name, id }) => name !== key.name || !same(id, key.id)).map(({ name }) => name);
  return { origin: lines[0], size, root, previous, others };
}

/** The log's name that a checkpoint claims, before anything of it is verified. */
export const claimedOrigin = (bytes) => text(bytes, "checkpoint").split("\n", 1)[0];

// Proofs (§7, §8)

/** Takes a tlog-proof file apart: nothing of it is true yet. */
export function parseProof(bytes) {
  const whole = text(bytes, "proof");
  const blank = whole.indexOf("\n\n");
  const lines = (blank < 0 ? whole : whole.slice(0, blank)).split("\n");
  if (blank < 0 || lines[0] !== PROOF_HEADER) throw new NotVerified("this is no proof file", "proof", lines[0].slice(0, 80), PROOF_HEADER);
  if (!lines[1]?.startsWith("extra ")) throw new NotVerified("the proof holds no leaf (no extra line)", "proof");
  if (!lines[2]?.startsWith("index ")) throw new NotVerified("the proof names no index", "proof", lines[2] ?? null, "index N");
  const extra = parseCanonical(unbase64(lines[1].slice(6), "extra"), "extra");
  const position = decimal(lines[2].slice(6), "index");
  const hashes = lines.slice(3);
  if (hashes.length > LONGEST_PROOF) throw new NotVerified(`the proof has ${hashes.length} hashes`, "proof", null, `at most ${LONGEST_PROOF}`);
  if (!isObject(extra) || Object.keys(extra).sort().join() !== "leaf,salts,values") {
    throw new NotVerified("it has other members than the format names", "extra", isObject(extra) ? Object.keys(extra).join(", ") : typeof extra, "leaf, salts, values");
  }
  if (typeof extra.leaf !== "string") throw new NotVerified("the leaf is no string", "extra");
  return { position, hashes: hashes.map((line) => unbase64(line, "proof", 32)), note: utf8.encode(whole.slice(blank + 2)), ...extra };
}

/**
 * Verifies a tlog-proof file under a key, step by step: `tell(what, detail)` after each that holds. Throws NotVerified at the first
 * that does not. Returns the position, the leaf, the values and salts that it discloses, and the checkpoint.
 */
export async function verifyProof(crypto, bytes, key, tell = () => {}) {
  const { position, hashes, note, leaf: said, salts, values } = parseProof(bytes);
  const checkpoint = await openCheckpoint(crypto, note, key);
  tell("The checkpoint is signed by the pinned key", `${key.name}, key id ${hex(key.id)}: ${checkpoint.size} records, root ${hex(checkpoint.root)}`);
  const leafBytes = utf8.encode(said);
  const hash = await leafHash(crypto, leafBytes);
  const where = `position ${position}`;
  if (!(await verifyInclusion(crypto, hash, position, checkpoint.size, hashes, checkpoint.root))) {
    throw new NotVerified("this leaf does not stand at this position of the log, or the proof of it is not one", where, `leaf hash ${hex(hash)}`, `a way to root ${hex(checkpoint.root)}`);
  }
  tell("The record's leaf stands in the log", `position ${position}: ${hashes.length} hashes lead from leaf hash ${hex(hash)} to that root`);
  const leaf = readLeaf(leafBytes, where);
  const fields = await checkDisclosed(crypto, leaf, salts, values, where);
  const hidden = Object.keys(leaf.commitments).filter((name) => !fields.includes(name)).sort();
  tell("The disclosed values are those that were recorded", `${fields.join(", ") || "none"}${hidden.length ? `; withheld or erased: ${hidden.join(", ")}` : ""}`);
  return { position, leaf, values, salts, hidden, checkpoint, note };
}

/** A consistency proof: the line `old N`, then hashes (§8). */
export function parseConsistency(bytes) {
  const lines = text(bytes, "consistency").split("\n");
  if (!lines[0].startsWith("old ") || lines.at(-1) !== "" || lines.length > 130) {
    throw new NotVerified("this is no consistency proof: the line `old N`, then hashes", "consistency", lines[0].slice(0, 80));
  }
  return { old: decimal(lines[0].slice(4), "consistency"), hashes: lines.slice(1, -1).map((line) => unbase64(line, "consistency", 32)) };
}

/**
 * That the log of a newer checkpoint begins with that of an older one, which was kept. `fetchProof(old, size)` gets the consistency
 * proof's bytes. Both are signed by the same public key, or this throws; the older one may be of a log that was closed since.
 */
export async function checkGrown(crypto, olderNote, newer, key, fetchProof) {
  const where = "consistency";
  const older = await openCheckpoint(crypto, olderNote, await keyOf(crypto, claimedOrigin(olderNote), key.bytes), "the checkpoint that this browser kept");
  if (older.origin !== newer.origin) {
    const closed = newer.previous.get(older.origin);
    if (closed === undefined) throw new NotVerified("the checkpoint kept before is of another log, from which this one does not go on", where, newer.origin, older.origin);
    if (older.size > closed) throw new NotVerified(`the log ${older.origin} was closed with ${closed} records, and what came after them was given up`, where, `${closed}`, `${older.size}`);
  }
  if (newer.size < older.size) throw new NotVerified("the log has become smaller than this browser saw it: it was rolled back", where, `${newer.size} records`, `at least ${older.size}`);
  if (newer.size === older.size && !same(newer.root, older.root)) {
    throw new NotVerified("two different trees of one size were signed: this server shows different people different logs", where, hex(newer.root), hex(older.root));
  }
  const { old, hashes } = older.size === newer.size ? { old: older.size, hashes: [] } : parseConsistency(await fetchProof(older.size, newer.size));
  if (old !== older.size) throw new NotVerified("the consistency proof begins at another size", where, `${old}`, `${older.size}`);
  if (!(await verifyConsistency(crypto, older.size, older.root, newer.size, newer.root, hashes))) {
    throw new NotVerified("the log does not begin with what this browser saw before, or the proof of it is not one", where, `root ${hex(newer.root)}`, `a tree that begins with root ${hex(older.root)}`);
  }
  return older;
}

