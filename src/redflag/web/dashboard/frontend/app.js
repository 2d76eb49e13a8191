// What every page needs: htmx, the kit's menus, times in the viewer's zone, live updates, questions before what cannot be
// undone, and words on what became of an act.
import "@tabler/core/dist/js/tabler.esm.js";
import htmx from "htmx.org/dist/htmx.esm.js";
import "./bars.js";
import "./dialogs.js";
import "./history.js";
import "./live.js";
import "./regions.js";
import "./selection.js";
import "./times.js";
import "./updates.js";
import { toast } from "./toasts.js";

// No script and no style that the page's Content-Security-Policy would refuse
htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.selfRequestsOnly = true;
htmx.config.historyCacheSize = 0;
htmx.config.timeout = 60_000;

// Every request that htmx makes says that it comes from this very page
document.addEventListener("htmx:configRequest", (event) => {
  const csrf = document.querySelector('meta[name="csrf-token"]');
  if (csrf) event.detail.headers["X-CSRF-Token"] = csrf.content;
});

// What the server refuses it explains in a problem document (RFC 9457)
document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  // An action of ours is answered; a region that is asked for anew only says that it is stale
  let said = `The server answered ${xhr.status}.`;
  try {
    said = JSON.parse(xhr.responseText).detail ?? said;
  } catch {
    // no problem document: a proxy in between, say
  }
  toast(said, "danger");
});
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig?.verb !== "get") toast("The server does not answer. Nothing was changed, as far as this page knows; look again in a moment.", "danger");
});
document.addEventListener("htmx:timeout", () => toast("The server took longer than a minute. Look again what became of it.", "warning"));

// A server's answer may carry words for the person: HX-Trigger: {"toast": {"text": …, "kind": …}}
document.addEventListener("toast", (event) => toast(event.detail.text, event.detail.kind));
