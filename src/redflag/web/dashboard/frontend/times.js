// Times: in words that stay true while the page is open ("3 min ago"), or by the viewer's clock; the exact UTC on hover.
//
// <time datetime="2030-01-31T12:00:00+00:00" data-time="ago|clock|both">
const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60]];
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
let ahead = 0;

/** The server's clock, in ms: what is told of distances is told by it, since the viewer's may be wrong. */
export const now = () => Date.now() + ahead;

const served = document.querySelector('meta[name="server-time"]');
if (served) {
  const off = Date.parse(served.content) - Date.now();
  // Less than that is the way from the server to here
  if (Math.abs(off) > 5_000) ahead = off;
}

/** A length of time in its largest unit: 12 s, 3 min, 5 h, 2 d. Seconds, not below 0. */
export function rough(seconds) {
  for (const [unit, size] of UNITS) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** A length of time in its two largest units: 3 min 5 s, 2 h, 3 d 4 h. */
export function length(seconds) {
  const whole = Math.round(seconds);
  const steps = [["d", 86_400, "h", 3_600], ["h", 3_600, "min", 60], ["min", 60, "s", 1]];
  for (const [unit, size, small, smaller] of steps) {
    if (whole >= size) {
      const more = Math.floor((whole % size) / smaller);
      return `${Math.floor(whole / size)} ${unit}` + (more ? ` ${more} ${small}` : "");
    }
  }
  return `${Math.max(0, whole)} s`;
}

function distance(seconds) {
  if (Math.abs(seconds) < 1) return "now";
  return seconds > 0 ? `in ${rough(seconds)}` : `${rough(-seconds)} ago`;
}

function tell(element) {
  const at = Date.parse(element.dateTime);
  if (Number.isNaN(at)) return;
  const how = element.dataset.time;
  if (!element.title) element.title = `${element.dateTime.replace("T", " ").replace("+00:00", "")} UTC`;
  const away = (at - now()) / 1000;
  const said = how === "clock" ? clock.format(at) : how === "both" ? `${clock.format(at)} (${distance(away)})` : distance(away);
  if (element.textContent !== said) element.textContent = said;
}

/** Tells every time below a node. */
export function tellTimes(root = document) {
  root.querySelectorAll("time[data-time]").forEach(tell);
}

tellTimes();
setInterval(() => document.visibilityState === "visible" && tellTimes(), 1_000);
document.addEventListener("htmx:afterSettle", () => tellTimes());
document.addEventListener("visibilitychange", () => tellTimes());
