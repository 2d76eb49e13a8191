// The proof of a record, verified in this browser: against the key that the person compared and pinned here, and against the newest
// checkpoint that this browser saw before. What is remembered stands in localStorage and nowhere else.
//
// Everything that is shown is shown as text. Nothing of the server's answer is believed before it was verified.
import { makeCrypto } from "./signatures.js";
import { checkGrown, checkShown, claimedOrigin, keyOf, NotVerified, parseKey, verifyProof } from "./tlog.js";

const KEY = "redflag.log.key";
const SEEN = "redflag.log.seen";
const LONGEST = 64 * 1024 * 1024;
const utf8 = new TextEncoder();
const crypto = makeCrypto();

/** What this browser remembers under a name, or null. What is not as it was put there counts as nothing. */
function remembered(name) {
  try {
    const found = JSON.parse(localStorage.getItem(name));
    return typeof found?.text === "string" && typeof found.at === "string" ? found : null;
  } catch {
    return null;
  }
}

function remember(name, text) {
  try {
    localStorage.setItem(name, JSON.stringify({ text, at: new Date().toISOString() }));
    return true;
  } catch {
    return false;
  }
}

/** The pinned key and the one that the server names now, and whether the server's is another. */
async function keys(offered) {
  const known = await crypto;
  const now = await parseKey(known, offered);
  const kept = remembered(KEY);
  if (!kept) return { now, pinned: null, changed: false };
  const pinned = await parseKey(known, kept.text);
  return { now, pinned, at: kept.at, changed: pinned.fingerprint !== now.fingerprint };
}

const part = (panel, name) => panel.querySelector(`[data-${name}]`);

function alarm(panel, ...lines) {
  const box = part(panel, "alarm");
  box.replaceChildren(...lines.filter(Boolean).map((line, at) => Object.assign(document.createElement(at ? "div" : "strong"), { className: "wrap-anywhere d-block", textContent: line })));
  box.hidden = false;
}

const spaced = (fingerprint) => fingerprint.replace(/(.{8})(?=.)/g, "$1 ");

/** Draws what is pinned: asks to compare the key, offers to verify, or warns that the key is another than it was. */
async function draw(panel) {
  let found;
  try {
    found = await keys(panel.dataset.key);
  } catch (error) {
    alarm(panel, "A key cannot be read.", said(error));
    return;
  }
  const { now, pinned, at, changed } = found;
  const unpinned = part(panel, "unpinned");
  if (unpinned) unpinned.hidden = Boolean(pinned);
  for (const box of panel.querySelectorAll("[data-pinned]")) box.hidden = !pinned;
  for (const box of panel.querySelectorAll("[data-fingerprint]")) box.textContent = `SHA-256 ${spaced((pinned ?? now).fingerprint)}`;
  if (pinned) {
    part(panel, "pinned-at").textContent = `on ${new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at))}`;
  }
  if (changed) {
    alarm(
      panel,
      "This server names another key than the one that is pinned in this browser.",
      `Pinned: SHA-256 ${spaced(pinned.fingerprint)}`,
      `Now: SHA-256 ${spaced(now.fingerprint)}`,
      "Unless you know of a new log on this server, its records may have been rewritten. Keep what you have saved of it, and ask whoever runs it. Records are verified against the pinned key only.",
    );
  }
}

function pin(panel) {
  if (!remember(KEY, panel.dataset.key)) alarm(panel, "This browser keeps nothing for this page, so that the key cannot be pinned.", "Use the offline verifier.");
  return draw(panel);
}

async function fetched(url) {
  const answer = await fetch(url, { headers: { Accept: "text/plain, application/problem+json" }, redirect: "error" });
  if (!answer.ok) {
    let why = `the server answered ${answer.status}`;
    try {
      why = (await answer.json()).detail ?? why;
    } catch {
      // no problem document
    }
    throw new Error(why);
  }
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (bytes.length > LONGEST) throw new NotVerified("the server's answer is too long for a proof", url);
  return bytes;
}

/** The record as this page shows it: texts to the letter from where they stand, the rest from what the page was drawn from. */
function shown() {
  const record = document.getElementById("record");
  const { plain, values } = JSON.parse(record.dataset.unseen);
  for (const element of record.querySelectorAll("[data-text]")) values[element.dataset.text] = element.textContent;
  return { plain, values };
}

/** The key under the name that the log has now: it keeps its key and changes its name when it was closed and goes on. */
async function keyNow(known, pinned, note) {
  const origin = claimedOrigin(note);
  return origin === pinned.name ? pinned : keyOf(known, origin, pinned.bytes);
}

const noteOf = (bytes) => {
  const text = new TextDecoder().decode(bytes);
  return utf8.encode(text.slice(text.indexOf("\n\n") + 2));
};

async function verify(panel) {
  const steps = part(panel, "steps");
  const verdict = part(panel, "verdict");
  steps.replaceChildren();
  verdict.hidden = true;
  part(panel, "alarm").hidden = true;
  const tell = (what, detail = "") => {
    const step = part(panel, "step").content.firstElementChild.cloneNode(true);
    step.querySelector("[data-what]").textContent = what;
    step.querySelector("[data-detail]").textContent = detail;
    steps.append(step);
  };
  const known = await crypto;
  const { pinned, changed } = await keys(panel.dataset.key);
  const bytes = await fetched(panel.dataset.proof);
  const key = await keyNow(known, pinned, noteOf(bytes));
  const proof = await verifyProof(known, bytes, key, tell);
  if (key.name !== pinned.name && !proof.checkpoint.previous.has(pinned.name)) {
    throw new NotVerified("the log has another name, and does not say that it goes on from the one that is pinned", "checkpoint", key.name, pinned.name);
  }
  if (proof.leaf.id !== panel.dataset.record) throw new NotVerified("the proof is of another record", "proof", proof.leaf.id, panel.dataset.record);
  await checkShown(known, shown(), proof);
  tell("What this page shows is what was recorded", "the leaf was made anew from the values on this page (RFC 8785, salted commitments), and is the same to the byte");
  const before = remembered(SEEN);
  const { checkpoint } = proof;
  if (before) {
    const older = await checkGrown(known, utf8.encode(before.text), checkpoint, key, (old, size) => fetched(`${panel.dataset.consistency}?old=${old}&size=${size}`));
    tell("The log goes on from what this browser saw before", `its ${older.size} records of ${new Date(before.at).toLocaleString()} are the first of today's ${checkpoint.size}, unchanged`);
  } else {
    tell("This browser keeps this checkpoint", "from the next time on it checks that the log only grew since");
  }
  remember(SEEN, new TextDecoder().decode(proof.note));
  const others = checkpoint.others.length ? ` Signatures of ${[...new Set(checkpoint.others)].join(", ")} stand on the checkpoint too; their keys are not pinned here, so they were not checked.` : "";
  verdict.textContent = `Verified by ${known.name}: this record stands at position ${proof.position} of the log, as it is shown here.${others}`;
  verdict.hidden = false;
  if (changed) await draw(panel);
}

const said = (error) => (error instanceof NotVerified ? [error.where, error.message].filter(Boolean).join(": ") : `${error.message}`);

async function verifyAndSay(panel, button) {
  button.disabled = true;
  try {
    await verify(panel);
  } catch (error) {
    const refused = error instanceof NotVerified;
    alarm(
      panel,
      refused ? "NOT verified." : "The proof could not be examined.",
      said(error),
      refused && error.says !== null && `It says: ${error.says}`,
      refused && error.expected !== null && `Expected: ${error.expected}`,
      refused ? "Save this page and the proof, check them with the offline verifier, and ask whoever runs this server." : "Try again in a moment.",
    );
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const panel = event.target.closest?.("[data-key]");
  if (!panel) return;
  const verifying = event.target.closest("[data-verify]");
  if (verifying) verifyAndSay(panel, verifying);
  if (event.target.closest("[data-pin]")) pin(panel);
  if (event.target.closest("[data-forget]")) {
    localStorage.removeItem(KEY);
    localStorage.removeItem(SEEN);
    part(panel, "alarm").hidden = true;
    draw(panel);
  }
});

const drawn = new WeakSet();
function drawAll() {
  for (const panel of document.querySelectorAll("[data-key]")) {
    if (drawn.has(panel)) continue;
    drawn.add(panel);
    draw(panel);
  }
}
drawAll();
document.addEventListener("htmx:afterSettle", drawAll);
