// Figures with their intervals, and what the runs were made of.

function figuresTab() {
  const { figures, between } = lab.data, judged = figures.filter(arm => arm.accuracy);
  return element("div", {}, accuracyTables(judged), betweenTable(between), changesTable(figures));
}

const NONE_SHOWN = "no difference shown";
const gainOf = found => found.gain ? signed(found.gain.mean) : "–";
const gainSpan = found => found.gain ? spanOf(found.gain.span) : "";
const gainVerdict = found => found.gain && !found.gain.shown ? NONE_SHOWN : "";

function accuracyTables(judged) {
  if (judged.length === 0) return [];
  const row = ({ name, seeds, accuracy: found }) => [
    name, seeds.join(", "), found.problems + (found.samples > 1 ? ` × ${found.samples}` : ""),
    short(found.before), spanOf(found.before_span), short(found.after), spanOf(found.after_span),
    gainOf(found), gainSpan(found), gainVerdict(found),
  ];
  const heads = ["arm", "seeds", "problems", "before", "", "after", "", "gained", "", ""];
  const parts = [
    element("h2", {}, "Held-out accuracy, before and after"),
    element("p", { class: "note" }, "95% intervals: Wilson's of one seed, else by drawing seeds and problems anew. ",
      "Gained: on the same problems."),
    table(heads, judged.map(row)), intervals(judged),
  ];
  const p = test => test.p < 1e-4 ? "< 0.0001" : test.p.toFixed(4);
  const tests = judged.flatMap(arm => arm.accuracy.tests.map(test =>
    [arm.name, test.seed, test.won, test.lost, p(test), test.shown ? "" : NONE_SHOWN]));
  if (tests.length > 0) {
    parts.push(element("h2", {}, "Each seed against its own beginning, problem by problem"),
      element("p", { class: "note" }, "McNemar's exact test, two-sided: were nothing learned, each problem that one of ",
        "the two solves alone would be a fair coin."),
      table(["arm", "seed", "won", "lost", "p", ""], tests));
  }
  const passes = judged.flatMap(arm => arm.accuracy.pass_at.map(([k, before, after]) =>
    [arm.name, k, short(before), short(after)]));
  if (passes.length > 0) {
    parts.push(element("h2", {}, "pass@k, the unbiased estimate"), table(["arm", "k", "before", "after"], passes));
  }
  return parts;
}

function betweenTable(between) {
  if (between.length === 0) return [];
  const row = found => [
    `${found.arm} less ${found.with}`, signed(found.difference), spanOf(found.span), found.shown ? "" : NONE_SHOWN,
    gainOf(found), gainSpan(found), gainVerdict(found),
  ];
  return [element("h2", {}, "Arms beside each other at the end, on the same problems"),
    table(["", "accuracy", "", "", "gained", "", ""], between.map(row))];
}

function changesTable(figures) {
  const spread = (arm, change) => arm.seeds.length > 1 ? `${short(change.least)} to ${short(change.most)}` : "";
  const rows = figures.flatMap(arm => arm.changes.map(change =>
    [arm.name, change.name, short(change.before), short(change.after), spread(arm, change)]));
  if (rows.length === 0) return [];
  return [element("h2", {}, "What else changed"),
    element("p", { class: "note" }, "Held-out figures: first and last evaluation. Others: mean of the first and of the ",
      "last ten steps."),
    table(["arm", "figure", "before", "after", "seeds"], rows)];
}

const spanOf = span => `[${short(span[0])}, ${short(span[1])}]`;

function table(heads, rows) {
  const isNumber = value => typeof value === "number" || /^[+\-–[<]?[\d.]/.test(value);
  const cell = value => element("td", { class: isNumber(value) ? "n" : null }, String(value));
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, heads.map(head => element("th", {}, head)))),
    element("tbody", {}, rows.map(row => element("tr", {}, row.map(cell))))));
}

// Accuracies as rings (before) and dots (after) with their intervals.
function intervals(arms) {
  const [width, row] = [560, 26], height = arms.length * row + 26, x = value => 150 + value * (width - 170), parts = [];
  const add = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parts.push(made);
  };
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    add("line", { x1: x(tick), x2: x(tick), y1: 4, y2: height - 20, stroke: "var(--line)" });
    add("text", { x: x(tick), y: height - 5, "text-anchor": "middle" }, String(tick));
  }
  arms.forEach((arm, i) => {
    const y = i * row + 16, stroke = `var(--c${lab.data.arms.findIndex(found => found.name === arm.name) % 8})`;
    add("text", { x: 0, y: y + 4 }, arm.name.slice(0, 22));
    [["before", -4, "var(--back)"], ["after", 4, stroke]].forEach(([when, off, fill]) => {
      const [low, high] = arm.accuracy[`${when}_span`];
      add("line", { x1: x(low), x2: x(high), y1: y + off, y2: y + off, stroke, "stroke-width": 2 });
      add("circle", { cx: x(arm.accuracy[when]), cy: y + off, r: 4, fill, stroke, "stroke-width": 2 });
    });
  });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const look = { viewBox: `0 0 ${width} ${height}`, width, height, "font-size": 12, fill: "var(--text)" };
  for (const [key, value] of Object.entries(look)) svg.setAttribute(key, value);
  svg.append(...parts);
  return element("div", { class: "scroll", title: "ring: before, dot: after" }, svg);
}

function configTab() {
  const parts = [];
  if (lab.data.differences.length > 0) parts.push(element("h2", {}, "Where the arms' configs differ"),
    table(["key", ...lab.data.arms.map(arm => arm.name)], lab.data.differences.map(([name, values]) => [name, ...values])));
  const remarks = lab.data.remarks.map(remark => element("li", {}, remark));
  if (remarks.length > 0) parts.push(element("h2", {}, "Notes"), element("ul", {}, remarks));
  lab.data.runs.forEach((run, index) => {
    const open = index === (state.run ?? 0), done = run.steps[run.steps.length - 1] ?? 0;
    const machine = Object.entries(run.machine).map(([name, value]) => `${name}: ${value}`).join("\n");
    const head = `${runName(run)}: ${run.name}, ${done} of ${run.asked ?? "?"} steps`;
    parts.push(element("details", { open }, element("summary", {}, head),
      machine ? element("pre", {}, machine) : null, element("pre", {}, run.config || "no config.toml")));
  });
  return element("div", {}, parts);
}
