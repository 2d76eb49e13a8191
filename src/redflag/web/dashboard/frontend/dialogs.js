// Questions before what cannot be undone: hx-confirm="…" asks in the page's own dialog, with the act's own word on the button.
//
// data-confirm-title and data-confirm-button on the same element say it better than the defaults.
const dialog = document.getElementById("confirm");
// What is asked about, and the live updates of its region that wait meanwhile: drawn anew, the region would take the button
// away from under the question, and the act with it
let asking = null;
const waiting = new Set();

document.addEventListener("htmx:confirm", (event) => {
  const { question, issueRequest, elt } = event.detail;
  if (!question || !dialog) return;
  event.preventDefault();
  const source = elt.closest("[hx-confirm]") ?? elt;
  dialog.querySelector("[data-title]").textContent = source.dataset.confirmTitle ?? "Are you sure?";
  dialog.querySelector("[data-text]").textContent = question;
  const yes = dialog.querySelector('button[value="yes"]');
  yes.textContent = source.dataset.confirmButton ?? elt.textContent.trim().slice(0, 40) ?? "Yes";
  dialog.returnValue = "";
  dialog.addEventListener("close", () => {
    asking = null;
    if (dialog.returnValue === "yes") issueRequest(true);
    else waiting.forEach((name) => document.body.dispatchEvent(new CustomEvent(name)));
    waiting.clear();
  }, { once: true });
  asking = elt;
  dialog.showModal();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (!asking || !target.contains(asking)) return;
  event.detail.shouldSwap = false;
  const name = requestConfig?.triggeringEvent?.type;
  if (/^(live|slow):/.test(name ?? "")) waiting.add(name);
});

// <button data-opens="id"> opens the dialog of that id; a dialog closes at [data-closes] and when its form was accepted
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (event.target.closest("[data-closes]")) event.target.closest("dialog")?.close();
});
document.addEventListener("htmx:afterRequest", (event) => {
  const { successful, elt, requestConfig } = event.detail;
  if (successful && requestConfig?.verb !== "get" && elt.matches("form[data-closes-dialog]")) {
    elt.closest("dialog")?.close();
    // A form that changes what is there keeps what was typed: that is how it is now
    if (elt.dataset.closesDialog !== "keep") elt.reset();
  }
});

// <button data-copies="id"> copies the text of that element
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copies);
  const text = from.value ?? from.textContent;
  try {
    await navigator.clipboard.writeText(text.trim());
    button.dataset.copied = "yes";
    button.querySelector("[data-label]").textContent = "Copied";
  } catch {
    // No clipboard on plain http to another host: the text is selected, for Ctrl-C
    getSelection().selectAllChildren(from);
    button.querySelector("[data-label]").textContent = "Press Ctrl-C";
  }
});

// <dialog data-opens-filled> opens when something was put into it; [data-leaves] in it closes it, and elsewhere goes where it leads
document.addEventListener("htmx:afterSettle", (event) => {
  const filled = event.detail.target?.closest?.("dialog[data-opens-filled]");
  // An answer to what was sent from within fills nothing
  if (event.detail.requestConfig?.verb !== "get") return;
  if (filled && !filled.open) filled.showModal();
});
document.addEventListener("click", (event) => {
  const dialog = event.target.closest("[data-leaves]")?.closest("dialog");
  if (!dialog) return;
  event.preventDefault();
  dialog.close();
});
