// Tables whose rows can be chosen: <form data-selection> with [data-all], [data-one] checkboxes, and a [data-bulk] bar that
// shows while something is chosen, with <span data-count>. What was chosen stays chosen when a live update draws the rows anew.
const chosen = new Map();

// Not form.id: a field of that name would stand in its place
const keyOf = (form) => form.getAttribute("id") || form.getAttribute("action") || "selection";

function show(form) {
  const ones = [...form.querySelectorAll("[data-one]")];
  const ticked = ones.filter((one) => one.checked);
  chosen.set(keyOf(form), new Set(ticked.map((one) => one.value)));
  const all = form.querySelector("[data-all]");
  if (all) {
    all.checked = ones.length > 0 && ticked.length === ones.length;
    all.indeterminate = ticked.length > 0 && ticked.length < ones.length;
  }
  form.querySelectorAll("[data-bulk]").forEach((bar) => (bar.hidden = ticked.length === 0));
  form.querySelectorAll("[data-count]").forEach((count) => (count.textContent = String(ticked.length)));
}

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form[data-selection]");
  if (!form) return;
  if (event.target.matches("[data-all]")) form.querySelectorAll("[data-one]").forEach((one) => (one.checked = event.target.checked));
  if (event.target.matches("[data-all], [data-one]")) show(form);
});
document.addEventListener("htmx:afterSettle", () => {
  document.querySelectorAll("form[data-selection]").forEach((form) => {
    const before = chosen.get(keyOf(form)) ?? new Set();
    form.querySelectorAll("[data-one]").forEach((one) => (one.checked = before.has(one.value)));
    show(form);
  });
});
document.querySelectorAll("form[data-selection]").forEach(show);
