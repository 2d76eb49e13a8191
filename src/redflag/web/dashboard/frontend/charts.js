// Charts: each is drawn from a table that stands on the page, so that whoever cannot see it reads the same.
//
// <figure class="chart" data-chart="stacked|lines" data-table="id of the table" data-unit="timeouts|ms">; the table has a <time> at
// the head of each row, th[data-series] for its columns and td[data-value]. Without the table, or with nothing in it, the figure is
// hidden. A chart follows its table when a live update draws that anew, light and dark, and the width that there is.
import uPlot from "uplot";

const COLOURS = ["blue", "orange", "teal", "purple", "yellow", "secondary"];
const HOUR = 3600;
const drawn = new Map();
// The kit's colours are made from others: only an element that has one knows what it is
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;
function css(name) {
  probe.style.color = `var(--tblr-${name})`;
  return getComputedStyle(probe).color;
}
const spoken = new Intl.NumberFormat(undefined);
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });

/** What a table says: moments in seconds, the columns' names, and their values, null where a cell has none. */
function read(table) {
  const rows = [...table.tBodies[0].rows];
  return {
    names: [...table.querySelectorAll("th[data-series]")].map((cell) => cell.textContent.trim()),
    times: rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000),
    values: rows.map((row) => [...row.querySelectorAll("td[data-value]")].map((cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value)))),
  };
}

/** A number with its unit. */
function said(value, unit) {
  if (value === null || value === undefined) return "-";
  if (unit !== "ms") return spoken.format(value);
  return value < 1000 ? `${spoken.format(Math.round(value))} ms` : `${spoken.format(value / 1000)} s`;
}

/** Columns as uPlot takes them. Stacked: the sum of all comes first and is painted over by what stands below it. */
function columns({ times, values, names }, kind) {
  const of = (place) => values.map((row) => row[place]);
  if (kind !== "stacked") return [times, ...names.map((_, place) => of(place).map((value) => (value === null ? null : Math.max(1, value))))];
  const sums = names.map((_, top) => values.map((row) => row.slice(0, top + 1).reduce((sum, value) => sum + value, 0)));
  return [times, ...sums.reverse()];
}

function options(figure, told, width) {
  const kind = figure.dataset.chart;
  const unit = figure.dataset.unit;
  const stacked = kind === "stacked";
  const axis = { stroke: css("secondary"), grid: { stroke: css("border-color"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const colours = told.names.map((_, place) => css(COLOURS[place % COLOURS.length]));
  const series = told.names.map((label, place) => ({
    label,
    stroke: colours[place],
    width: stacked ? 0 : 2,
    fill: stacked ? colours[place] : undefined,
    paths: stacked ? uPlot.paths.bars({ size: [0.8, 48], align: 1, radius: 0.05 }) : undefined,
    points: { show: !stacked, size: 5 },
  }));
  if (stacked) series.reverse();
  return {
    width,
    height: 220,
    legend: { show: false },
    padding: [12, 28, 0, 0],
    cursor: { points: { show: !stacked }, drag: { x: false, y: false }, y: false },
    scales: {
      x: { range: (_, low, high) => [low, stacked ? high + HOUR : high] },
      y: stacked ? { range: (_, _low, high) => [0, Math.max(4, high * 1.05)] } : { distr: 3, log: 10 },
    },
    axes: [
      { ...axis, space: 60, values: (_, all) => all.map((at) => clock.format(at * 1000)) },
      { ...axis, size: 58, incrs: stacked ? [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6] : undefined, values: (_, all) => all.map((one) => (one === null ? "" : said(one, unit))) },
    ],
    series: [{}, ...series],
    hooks: { setCursor: [(plot) => point(figure, told, plot.cursor.idx)] },
  };
}

/** Says in words what the pointer is at. */
function point(figure, told, place) {
  const words = figure.querySelector(".chart-said");
  if (!words) return;
  if (place === null || place === undefined) {
    words.textContent = "";
    return;
  }
  const row = told.values[place];
  const some = told.names.map((name, at) => [name, row[at]]).filter(([, value]) => value);
  const unit = figure.dataset.unit;
  words.textContent = `from ${clock.format(told.times[place] * 1000)}: ${some.length ? some.map(([name, value]) => `${name} ${said(value, unit)}`).join(", ") : "none"}`;
}

/** The colours' names below the chart. The table says the same, so that readers of the screen pass this over. */
function legend(figure, told) {
  const list = document.createElement("ul");
  list.className = "chart-legend";
  told.names.forEach((name, place) => {
    const one = document.createElement("li");
    const colour = document.createElement("span");
    colour.className = `status-dot bg-${COLOURS[place % COLOURS.length]}`;
    one.append(colour, ` ${name}`);
    list.append(one);
  });
  const words = document.createElement("div");
  words.className = "chart-said";
  figure.append(list, words);
}

function draw(figure, anew = false) {
  const table = document.getElementById(figure.dataset.table);
  const before = drawn.get(figure);
  if (!table) {
    figure.hidden = true;
    return;
  }
  const told = read(table);
  figure.hidden = false;
  const width = figure.clientWidth;
  if (!width) return;
  const names = JSON.stringify(told.names);
  if (before && !anew && before.names === names) {
    Object.assign(before.told, told);
    before.plot.setData(columns(told, figure.dataset.chart));
    return;
  }
  before?.plot.destroy();
  figure.replaceChildren();
  const holder = document.createElement("div");
  holder.className = "chart-plot";
  figure.setAttribute("aria-hidden", "true");
  figure.append(holder);
  legend(figure, told);
  drawn.set(figure, { names, told, plot: new uPlot(options(figure, told, width), columns(told, figure.dataset.chart), holder) });
}

const all = () => document.querySelectorAll("figure[data-chart]");
all().forEach((figure) => draw(figure));
document.addEventListener("htmx:afterSettle", (event) => {
  all().forEach((figure) => {
    const table = document.getElementById(figure.dataset.table);
    // Only where the table was drawn anew, or went
    if (!table ? !figure.hidden : event.detail.target?.contains(table)) draw(figure);
  });
});
document.addEventListener("theme", () => all().forEach((figure) => draw(figure, true)));
const wide = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const here = drawn.get(target);
    if (here && target.clientWidth && here.plot.width !== target.clientWidth) here.plot.setSize({ width: target.clientWidth, height: 220 });
  }
});
all().forEach((figure) => wide.observe(figure));
