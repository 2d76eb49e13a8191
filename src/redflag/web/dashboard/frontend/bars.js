// Deadlines as bars that shrink: <progress data-deadline="ISO" data-since="ISO"> with <span data-left> for the words, in one
// [data-bar]. The bar is full at `since` and empty at the deadline.
import { length, now } from "./times.js";

function draw(bar) {
  const progress = bar.querySelector("progress");
  const until = Date.parse(progress.dataset.deadline);
  const since = Date.parse(progress.dataset.since);
  const left = Math.max(0, (until - now()) / 1000);
  progress.max = Math.max(1, (until - since) / 1000);
  progress.value = Math.min(left, progress.max);
  const share = progress.value / progress.max;
  bar.dataset.urgency = left === 0 ? "over" : share < 0.1 ? "high" : share < 0.3 ? "medium" : "low";
  const words = bar.querySelector("[data-left]");
  if (words) words.textContent = left > 0 ? `${length(left)} left` : "overdue";
}

const drawAll = () => document.querySelectorAll("[data-bar]").forEach(draw);
drawAll();
setInterval(() => document.visibilityState === "visible" && drawAll(), 1_000);
document.addEventListener("htmx:afterSettle", drawAll);
