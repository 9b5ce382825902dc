// Charts against the step: a line for each arm and metric, a band for its seeds. A click leads to the rollouts of a step.

const DASHES = [[], [6, 4], [2, 3], [9, 3, 2, 3]];
const colour = index => getComputedStyle(document.documentElement).getPropertyValue(`--c${index % 8}`).trim();
const shade = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// The lines of a chart, with their bands: those of arms that are not hidden.
function linesOf(chart) {
  const arms = lab.data.arms.map((_, index) => index).filter(index => !state.hidden.includes(index));
  const metrics = [...chart.left.map(name => [name, "y"]), ...chart.right.map(name => [name, "r"])];
  const alone = lab.data.arms.length === 1, found = [];
  for (const arm of arms) {
    metrics.forEach(([metric, scale], which) => {
      const values = band(arm, metric, state.smooth);
      if (!values) return;
      const own = lab.data.arms[arm].name;
      const name = alone ? metric : metrics.length === 1 ? own : `${own} ${metric}`;
      found.push({
        arm, metric, scale, name, ...values, stroke: colour(alone ? which : arm),
        dash: alone && scale === "y" ? [] : DASHES[which % DASHES.length],
      });
    });
  }
  return found;
}

// Puts a chart's frame into the page; it is drawn when it comes into view.
function chartBox(chart) {
  const draw = element("div", { class: "draw" }), keys = element("div", { class: "keys" });
  const box = element("section", { class: "chart", id: `chart-${chart.id}` },
    element("h3", {}, chart.title,
      element("button", { title: "Save as a picture", onclick: () => savePicture(draw, chart.id) }, "png")),
    element("div", { class: "note" }, chart.note || " "), draw, keys);
  const seen = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    seen.disconnect();
    if (chart.kind === "path") drawPath(draw, keys, chart); else drawCurves(draw, keys, chart);
  }, { rootMargin: "300px" });
  seen.observe(draw);
  return box;
}

function drawCurves(host, keys, chart) {
  const lines = linesOf(chart);
  if (lines.length === 0) return void host.append("nothing to draw");
  const steps = [...new Set(lines.flatMap(line => line.steps))].sort((a, b) => a - b);
  const place = new Map(steps.map((step, i) => [step, i]));
  const spread = (line, values) => {
    const all = new Array(steps.length).fill(null);
    line.steps.forEach((step, i) => { all[place.get(step)] = values[i]; });
    return all;
  };
  const data = [steps], series = [{}], bands = [];
  for (const line of lines) {
    const common = { scale: line.scale, spanGaps: true };
    const thin = { ...common, stroke: "transparent", width: 0, points: { show: false } };
    const points = { show: line.steps.length < 40, size: 5 };
    series.push({ ...common, stroke: line.stroke, width: 1.8, dash: line.dash, points });
    data.push(spread(line, line.mean));
    if (line.seeds > 1 || line.problems) {
      bands.push({ series: [series.length, series.length + 1], fill: line.stroke + "2b" });
      series.push(thin, thin);
      data.push(spread(line, line.high), spread(line, line.low));
    }
  }
  const rule = { stroke: shade("line"), width: 0.5 };
  const values = (_, all) => all.map(value => value === null ? "" : +value.toPrecision(6));
  const axis = { stroke: shade("faint"), grid: rule, ticks: rule, size: 50, values };
  const whole = (_, all) => all.map(value => Number.isInteger(value) ? value : "");
  const axes = [{ ...axis, size: 30, values: whole }, { ...axis, scale: "y" }];
  if (lines.some(line => line.scale === "r")) axes.push({ ...axis, scale: "r", side: 1, grid: { show: false } });
  // What is never negative is drawn from 0, unless that would press it flat.
  const from = (low, high) => low > 0 && low < high / 2 ? 0 : low;
  const range = (_, low, high) => low === null ? [0, 1] : uPlot.rangeNum(from(low, high), high, 0.08, true);
  const plot = new uPlot({
    width: host.clientWidth, height: host.clientHeight, series, bands, axes, legend: { show: false },
    scales: { x: { time: false }, y: { range }, r: { range } },
    cursor: { sync: { key: "lab" }, drag: { x: true, y: false }, points: { size: 6 } },
  }, data, host);
  host.plot = plot;
  keys.replaceChildren(...lines.map(key));
  plot.over.addEventListener("mousemove", event => tip(event, describe(lines, steps[plot.cursor.idx])));
  plot.over.addEventListener("mouseleave", () => tip(null, ""));
  let pressed = 0;
  plot.over.addEventListener("mousedown", event => { pressed = event.clientX; });
  plot.over.addEventListener("click", event => {
    // The end of a drag is a zoom.
    if (Math.abs(event.clientX - pressed) > 4 || plot.cursor.idx === null || plot.cursor.idx === undefined) return;
    openStep(nearest(plot, lines, steps[plot.cursor.idx], plot.cursor.top), steps[plot.cursor.idx]);
  });
  new ResizeObserver(() => plot.setSize({ width: host.clientWidth, height: host.clientHeight })).observe(host);
}

// The line that is nearest to the pointer, among those that have the step.
function nearest(plot, lines, step, top) {
  const away = line => {
    const at = line.steps.indexOf(step);
    return at < 0 ? Infinity : Math.abs(plot.valToPos(line.mean[at], line.scale) - top);
  };
  return lines.reduce((best, line) => away(line) < away(best) ? line : best);
}

function describe(lines, step) {
  if (step === undefined) return "";
  const rows = lines.map(line => {
    const at = line.steps.indexOf(step);
    if (at < 0) return null;
    const spread = line.seeds > 1 ? `  ${short(line.low[at])} to ${short(line.high[at])}, ${line.seeds} seeds`
      : line.problems && line.low[at] !== null ? `  [${short(line.low[at])}, ${short(line.high[at])}]` : "";
    return `${line.name}  ${short(line.mean[at])}${spread}`;
  });
  return [`step ${step}`, ...rows.filter(Boolean), "click for the rollouts"].join("\n");
}

// A line of the legend.
function key(line) {
  const dash = line.dash.join(" ") || "none";
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  mark.setAttribute("width", "20"); mark.setAttribute("height", "8");
  const way = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const look = { d: "M0 4H20", stroke: line.stroke, "stroke-width": "2.5", "stroke-dasharray": dash };
  for (const [name, value] of Object.entries(look)) way.setAttribute(name, value);
  mark.append(way);
  return element("span", { title: lab.data.meanings[line.metric] || line.metric }, mark, line.name);
}

// The rollouts of the step nearest to this one, of the run nearest to the line's arm.
function openStep(line, step) {
  const runs = lab.data.arms[line.arm].runs.filter(run => lab.data.runs[run].texts.length > 0);
  if (runs.length === 0) return go({ tab: "config" });
  const run = runs.includes(state.run) ? state.run : runs[0];
  go({ tab: "rollouts", run, step: closest(lab.data.runs[run].texts, step), group: 0 });
}

const closest = (steps, step) => steps.reduce((best, next) => Math.abs(next - step) < Math.abs(best - step) ? next : best);

function savePicture(host, name) {
  const canvas = host.querySelector("canvas");
  if (!canvas) return;
  const link = element("a", { href: canvas.toDataURL("image/png"), download: `${name}.png` });
  link.click();
}
