// The dashboard's verifier, driven from outside: cases as JSON on standard input, for each of them what was said on standard output.
//
// A case is {"do": name, ...}. The answer is {"ok": value} or {"refused": [what, where, says, expected]}; whatever else goes wrong
// ends the process.
import { readFileSync } from "node:fs";
import { makeCrypto } from "../../../src/redflag/web/dashboard/frontend/signatures.js";
import * as tlog from "../../../src/redflag/web/dashboard/frontend/tlog.js";

const [how] = process.argv.slice(2);
const crypto = await makeCrypto(how === "native" ? globalThis.crypto.subtle : null);
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const unhex = (text) => Uint8Array.from(Buffer.from(text, "hex"));

const DO = {
  name: () => crypto.name,
  signature: ({ key, message, signature }) => crypto.verifies(unhex(key), unhex(message), unhex(signature)),
  canonical: ({ data }) => tlog.canonical(tlog.parseCanonical(bytes(data), "json")),
  leaf: ({ data }) => tlog.readLeaf(bytes(data), "leaf").id,
  leafHash: async ({ data }) => tlog.hex(await tlog.leafHash(crypto, bytes(data))),
  disclosed: ({ data, salts, values }) => tlog.checkDisclosed(crypto, tlog.readLeaf(bytes(data), "leaf"), salts, values, "leaf"),
  key: async ({ vkey }) => (await tlog.parseKey(crypto, vkey)).fingerprint,
  checkpoint: async ({ data, vkey }) => {
    const { size, root } = await tlog.openCheckpoint(crypto, bytes(data), await tlog.parseKey(crypto, vkey));
    return [String(size), tlog.hex(root)];
  },
  inclusion: ({ leaf, index, size, proof, root }) =>
    tlog.verifyInclusion(crypto, unhex(leaf), BigInt(index), BigInt(size), proof.map(unhex), unhex(root)),
  consistency: ({ old, oldRoot, size, root, proof }) =>
    tlog.verifyConsistency(crypto, BigInt(old), unhex(oldRoot), BigInt(size), unhex(root), proof.map(unhex)),
  proof: async ({ data, vkey }) => {
    const said = [];
    const { position, hidden } = await tlog.verifyProof(crypto, bytes(data), await tlog.parseKey(crypto, vkey), (what) => said.push(what));
    return { position: String(position), hidden, said };
  },
  shown: async ({ data, vkey, shown }) => {
    const proof = await tlog.verifyProof(crypto, bytes(data), await tlog.parseKey(crypto, vkey));
    await tlog.checkShown(crypto, shown, proof);
    return true;
  },
  grown: async ({ older, newer, vkey, consistency }) => {
    const key = await tlog.parseKey(crypto, vkey);
    const head = await tlog.openCheckpoint(crypto, bytes(newer), key);
    const found = await tlog.checkGrown(crypto, bytes(older), head, key, async () => bytes(consistency));
    return String(found.size);
  },
};

const answers = [];
for (const one of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push({ ok: await DO[one.do](one) });
  } catch (error) {
    if (!(error instanceof tlog.NotVerified)) throw error;
    answers.push({ refused: [error.what, error.where, error.says, error.expected] });
  }
}
process.stdout.write(JSON.stringify(answers));
