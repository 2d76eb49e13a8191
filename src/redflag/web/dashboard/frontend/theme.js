// Light or dark, before anything is painted: what the person chose, else what their system prefers.
const chosen = localStorage.getItem("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const apply = () => {
  const theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
  document.documentElement.setAttribute("data-bs-theme", theme);
  document.dispatchEvent(new CustomEvent("theme", { detail: theme }));
};
apply();
if (!chosen) dark.addEventListener("change", apply);

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-toggle]")) return;
  const now = document.documentElement.getAttribute("data-bs-theme");
  localStorage.setItem("theme", now === "dark" ? "light" : "dark");
  apply();
});
