// The history's timeline: its days are those of whoever looks, its times too; a filter's address has in it only what was filled in.
const day = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
const ofDay = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function named(at) {
  const from = new Date();
  const away = Math.round((new Date(from.getFullYear(), from.getMonth(), from.getDate()) - new Date(at.getFullYear(), at.getMonth(), at.getDate())) / 86_400_000);
  return { 0: `Today, ${day.format(at)}`, 1: `Yesterday, ${day.format(at)}` }[away] ?? day.format(at);
}

/** Puts the records under the days of the viewer's zone; the server grouped them by UTC. */
function group(list) {
  const days = new Map();
  for (const one of list.querySelectorAll("[data-event]")) {
    const heading = named(new Date(one.dataset.event));
    if (!days.has(heading)) days.set(heading, []);
    days.get(heading).push(one);
  }
  list.replaceChildren(
    ...[...days].map(([heading, ones]) => {
      const section = document.createElement("section");
      const title = Object.assign(document.createElement("h2"), { className: "day", textContent: heading });
      const events = Object.assign(document.createElement("ol"), { className: "events" });
      events.append(...ones);
      section.append(title, events);
      return section;
    }),
  );
  for (const time of list.querySelectorAll("time[data-of-day]")) {
    time.title = `${time.dateTime.replace("T", " ").replace("+00:00", "")} UTC`;
    time.textContent = ofDay.format(new Date(time.dateTime));
  }
}
document.querySelectorAll("[data-days]").forEach(group);

// What was left empty is no filter
document.addEventListener("formdata", (event) => {
  if (!event.target.matches("[data-filter]")) return;
  for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
});

// A time by the calendar: it goes into the field beside it with its zone, so that the address means the same to everybody
for (const button of document.querySelectorAll("[data-picks]")) {
  const picker = document.getElementById(`${button.dataset.picks}-picker`);
  if (!picker?.showPicker) continue;
  button.hidden = false;
  button.addEventListener("click", () => {
    picker.disabled = false;
    picker.showPicker();
  });
  picker.addEventListener("change", () => {
    if (picker.value) document.getElementById(button.dataset.picks).value = new Date(picker.value).toISOString().replace(/\.\d+Z$/, "Z");
  });
}
