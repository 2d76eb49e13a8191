// Live: one stream of server-sent events says which subjects changed; each region that listens asks for itself anew.
//
// <div hx-get="…" hx-trigger="live:commands from:body"> is drawn anew when commands changed; with slow:commands at most every few
// seconds, and once more after the last change, so that what is shown last is how it is. Where no stream comes through, the
// regions are asked for every few seconds instead. When nothing was heard of the server for a while the page says that it is stale.
//
// One region of a page may be sent along with the stream, <div id="…" data-pushed hx-get="…" hx-trigger="pull from:body">: it asks for
// itself only where no stream comes through, and after an act.
import htmx from "htmx.org/dist/htmx.esm.js";

const page = document.body;
const pushed = document.querySelector("[data-pushed]");
const SUBJECTS = ["agents", "presence", "commands", "updates", "records", "log", "settings"];
// The server says something every 8 s at the least; a stream that broke is known at once
const STALE_MS = 12_000;
const POLL_MS = 10_000;
const SLOW_MS = 4_000;
let heard = Date.now();
let streaming = false;
let lastPoll = 0;
let ended = false;

/** Tells the page that subjects changed, each listener at a moment of its own within `spread` ms: many pages, one server. */
function announce(subjects, spread = 0) {
  const tell = () => subjects.forEach((subject) => {
    page.dispatchEvent(new CustomEvent(`live:${subject}`));
    slowly(subject);
  });
  if (document.visibilityState === "hidden") missed = new Set([...missed, ...subjects]);
  else if (spread) setTimeout(tell, Math.random() * spread);
  else tell();
}
let missed = new Set();

// By subject: when it was last told slowly, or the timer by which it will be
const told = new Map();
const later = new Map();

function slowly(subject) {
  if (later.has(subject)) return;
  const tell = () => {
    later.delete(subject);
    told.set(subject, Date.now());
    page.dispatchEvent(new CustomEvent(`slow:${subject}`));
  };
  const wait = (told.get(subject) ?? 0) + SLOW_MS - Date.now();
  if (wait <= 0) tell();
  else later.set(subject, setTimeout(tell, wait));
}

// An act's answer names subjects as well, by the header HX-Trigger; what is shown slowly hears of them too
SUBJECTS.forEach((subject) => page.addEventListener(`live:${subject}`, (event) => {
  if (event.target === page) return;
  slowly(subject);
  pull();
}));

function pull() {
  if (pushed) page.dispatchEvent(new CustomEvent("pull"));
}

/** Draws the region that came with the stream, unless somebody is being asked about what stands in it. */
function draw({ id, html }) {
  const target = document.getElementById(id);
  if (!target) return;
  const detail = { target, shouldSwap: true };
  target.dispatchEvent(new CustomEvent("htmx:beforeSwap", { bubbles: true, detail }));
  if (detail.shouldSwap) htmx.swap(target, html, { swapStyle: "innerHTML", swapDelay: 0, settleDelay: 20 }, { eventInfo: { target } });
}

function stale(is) {
  const notice = document.getElementById("stale");
  if (!notice || notice.hidden === !is) return;
  notice.hidden = !is;
}

function connect() {
  const stream = new EventSource(pushed ? `/live?region=${pushed.id}` : "/live");
  stream.addEventListener("region", (event) => draw(JSON.parse(event.data)));
  stream.addEventListener("open", () => {
    streaming = true;
    heard = Date.now();
  });
  stream.addEventListener("pulse", (event) => {
    heard = Date.now();
    stale(false);
    const { subjects, spread } = JSON.parse(event.data);
    if (subjects.length) announce(subjects, spread);
  });
  // The session is over, or was ended: whoever comes next logs in
  stream.addEventListener("bye", () => {
    ended = true;
    stream.close();
    location.reload();
  });
  stream.addEventListener("error", () => {
    streaming = false;
    if (stream.readyState === EventSource.CLOSED && !ended) {
      stream.close();
      setTimeout(connect, 5_000 + Math.random() * 5_000);
    }
  });
}

async function poll() {
  lastPoll = Date.now();
  try {
    const answer = await fetch("/live/ping", { headers: { Accept: "application/json" }, redirect: "error" });
    if (answer.status === 401) location.reload();
    if (!answer.ok) return;
    heard = Date.now();
    stale(false);
    announce(SUBJECTS);
    pull();
  } catch {
    // not heard of: the notice says so
  }
}

if (page.dataset.live !== undefined) {
  connect();
  setInterval(() => {
    const silent = Date.now() - heard;
    if (silent > STALE_MS) {
      stale(true);
      const words = document.querySelector("#stale [data-silent]");
      if (words) words.textContent = `${Math.round(silent / 1000)} s`;
    }
    if (!streaming && Date.now() - lastPoll > POLL_MS && document.visibilityState === "visible") poll();
  }, 1_000);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && missed.size) {
      const subjects = [...missed];
      missed = new Set();
      announce(subjects);
    }
  });
}
