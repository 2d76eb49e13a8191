// What an act would be for: each chosen row says how many updates it stands for ("approve:12 reject:14 "), each button of the
// bulk bar shows the sum and is not there where it is none. With "all that match" chosen the server counts.
function tell(form) {
  const sums = {};
  let capped = false;
  for (const one of form.querySelectorAll("[data-one]:checked")) {
    capped ||= one.dataset.capped !== undefined;
    for (const said of one.dataset.acts.split(" ").filter(Boolean)) {
      const [act, number] = said.split(":");
      sums[act] = (sums[act] ?? 0) + Number(number);
    }
  }
  const everything = form.querySelector("[data-everything]")?.checked;
  for (const button of form.querySelectorAll("button[data-act]")) {
    const number = sums[button.dataset.act] ?? 0;
    const sum = button.querySelector("[data-sum]");
    if (sum) sum.textContent = everything ? "all" : number.toLocaleString() + (capped && number ? "+" : "");
    button.hidden = !everything && number === 0;
  }
}

const tellAll = () => document.querySelectorAll("form[data-selection]:has([data-acts])").forEach(tell);
document.addEventListener("change", tellAll);
document.addEventListener("htmx:afterSettle", tellAll);
tellAll();
