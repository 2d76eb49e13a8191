// Words on what became of an act, said aloud by screen readers, gone by themselves unless they are bad news.
const SECONDS = { success: 6, info: 6, warning: 15, danger: 0 };

/** Shows a text. `kind` is success, info, warning or danger; the last stays until it is closed. */
export function toast(text, kind = "info") {
  const region = document.getElementById("toasts");
  if (!region) return;
  const shown = document.getElementById("toast-template").content.firstElementChild.cloneNode(true);
  shown.classList.add(`alert-${kind}`);
  shown.querySelector("[data-text]").textContent = text;
  if (kind === "danger") shown.setAttribute("role", "alert");
  const close = () => shown.remove();
  shown.querySelector("button").addEventListener("click", close);
  region.append(shown);
  while (region.children.length > 4) region.firstElementChild.remove();
  const seconds = SECONDS[kind] ?? 6;
  if (seconds) setTimeout(close, seconds * 1000);
}
