// Regions that a live update draws anew keep what the person did in them: <details id> that were open stay open. And what one must
// know is said once: [data-announces="id"] in a region gives its words to the status of that id when they are others than before.
const open = new Set();

document.addEventListener("htmx:beforeSwap", (event) => {
  event.detail.target?.querySelectorAll?.("details[id]").forEach((one) => (one.open ? open.add(one.id) : open.delete(one.id)));
});
document.addEventListener("htmx:afterSwap", (event) => {
  event.detail.target?.querySelectorAll?.("details[id]").forEach((one) => open.has(one.id) && (one.open = true));
});
document.addEventListener("htmx:afterSettle", () => {
  document.querySelectorAll("[data-announces]").forEach((one) => {
    const status = document.getElementById(one.dataset.announces);
    const said = one.textContent.trim();
    if (status && status.textContent !== said) status.textContent = said;
  });
});
