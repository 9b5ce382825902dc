// What is shown is a state; every state is a link. Tabs draw the state, and everything a reader does changes it by go().

const DEFAULTS = {
  tab: "overview", theme: null, hidden: [], smooth: 1,
  run: null, step: null, group: 0, overlay: "probability", marks: true,
  verdict: "any", rmin: null, rmax: null, nmin: null, nmax: null, words: "",
  problem: null, kind: "gained", a: null, b: null,
};
const NUMBERS = ["run", "step", "group", "problem", "a", "b", "smooth", "rmin", "rmax", "nmin", "nmax"];
const state = { ...DEFAULTS };
const TABS = {
  overview: ["Overview", overviewTab], curves: ["Curves", curvesTab], rollouts: ["Rollouts", rolloutsTab],
  problems: ["Problems", problemsTab], figures: ["Figures", figuresTab], config: ["Config", configTab],
};

// The state as a link has it: what is not as by default, as JSON values.
function toHash() {
  const changed = Object.keys(DEFAULTS).filter(key => JSON.stringify(state[key]) !== JSON.stringify(DEFAULTS[key]));
  return "#" + changed.map(key => `${key}=${encodeURIComponent(JSON.stringify(state[key]))}`).join("&");
}

// Whether a value is of the kind that the state holds under this key.
function fits(key, value) {
  const like = DEFAULTS[key];
  if (NUMBERS.includes(key)) return typeof value === "number" || (value === null && like === null);
  if (key === "theme") return ["light", "dark"].includes(value);
  return typeof value === typeof like && Array.isArray(value) === Array.isArray(like);
}

// A link that says something of another kind than the state holds is as good as none.
function fromHash() {
  Object.assign(state, DEFAULTS);
  for (const part of location.hash.slice(1).split("&").filter(Boolean)) {
    const [key, value] = part.split("=");
    try {
      const found = JSON.parse(decodeURIComponent(value));
      if (key in DEFAULTS && fits(key, found)) state[key] = found;
    } catch { /* not one of our links */ }
  }
  if (!(state.tab in TABS)) state.tab = DEFAULTS.tab;
  if (!["all", "gained", "lost", "never right"].includes(state.kind)) state.kind = DEFAULTS.kind;
}

function go(change) {
  const place = change.tab !== undefined && change.tab !== state.tab;
  Object.assign(state, change);
  const link = toHash() === "#" ? location.pathname + location.search : toHash();
  history[place ? "pushState" : "replaceState"](null, "", link);
  draw();
}

function draw() {
  const theme = state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  tip(null, "");
  const names = lab.data.arms.map(arm => arm.name);
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  document.getElementById("title").textContent = names.slice(0, 3).join(", ") + more;
  const tabs = Object.entries(TABS).map(([tab, [name]]) => {
    const selected = String(tab === state.tab);
    return element("button", { role: "tab", id: `tab-${tab}`, "aria-selected": selected, onclick: () => go({ tab }) }, name);
  });
  document.getElementById("tabs").replaceChildren(...tabs);
  document.getElementById("main").replaceChildren(TABS[state.tab][1]());
}

// Arms can be hidden; what is told of them is smoothed over some steps.
function curveBar() {
  const arms = lab.data.arms.map((arm, index) => {
    const hidden = state.hidden.includes(index);
    const others = state.hidden.filter(other => other !== index);
    const toggle = () => go({ hidden: hidden ? others : [...others, index] });
    const seeds = arm.runs.length > 1 ? ` (${arm.runs.length} seeds)` : "";
    return element("button", { class: "arm", "aria-pressed": String(!hidden), onclick: toggle },
      element("i", { style: `background: var(--c${index % 8})` }), arm.name + seeds);
  });
  const windows = [[1, "each step"], [5, "5 steps"], [10, "10 steps"], [25, "25 steps"]];
  return element("div", { class: "bar" }, lab.data.arms.length > 1 ? arms : null,
    choice("Mean over", windows, state.smooth, value => go({ smooth: +value })),
    element("span", { class: "faint" }, "bands: lowest to highest seed, or Wilson's interval of one seed's held-out ",
      "accuracy; click: rollouts; drag: zoom, double click: back"));
}

function overviewTab() {
  const charts = lab.data.charts.slice(0, 6);
  return element("div", {}, curveBar(), element("div", { class: "charts" }, charts.map(chartBox)),
    element("h2", {}, "In figures"), element("pre", { id: "summary" }, lab.data.summary));
}

function curvesTab() {
  const meanings = Object.entries(lab.data.meanings).flatMap(([name, meaning]) =>
    [element("dt", {}, element("code", {}, name)), element("dd", { class: "faint" }, meaning)]);
  return element("div", {}, curveBar(), element("div", { class: "charts" }, lab.data.charts.map(chartBox)),
    element("h2", {}, "What the numbers are"), element("dl", {}, meanings));
}

async function copyLink() {
  const link = location.href;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // A page from a file may not use the clipboard: the old way.
    const field = element("textarea", {}, link);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const button = document.getElementById("copy");
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy link"; }, 1200);
}

// A page that a run serves asks it for what is new, and draws the same state of it.
async function follow(known) {
  let version = known;
  try {
    version = await (await fetch("version")).text();
    if (version !== known) {
      lab.data = await (await fetch("data")).json();
      lab.cache.clear();
      for (let run = 0; run < lab.data.runs.length; run++) {
        for (const kind of ["transcripts", "problems"]) {
          const texts = await (await fetch(`${kind}/${run}`)).json();
          lab.cache.set(`${kind}-${run}`, texts);
        }
      }
      // Not under the pen of somebody who types.
      if (!["INPUT", "SELECT"].includes(document.activeElement?.tagName)) draw();
    }
    const run = lab.data.runs[0];
    const step = run?.steps[run.steps.length - 1] ?? 0;
    document.getElementById("live").textContent = `live, step ${step} of ${run?.asked ?? "?"}`;
  } catch {
    document.getElementById("live").textContent = "the run has ended or does not answer";
  }
  setTimeout(() => follow(version), 2000);
}

document.getElementById("copy").addEventListener("click", copyLink);
document.getElementById("theme").addEventListener("click", () => {
  go({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" });
});
window.addEventListener("hashchange", () => { fromHash(); draw(); });
window.addEventListener("popstate", () => { fromHash(); draw(); });
fromHash();
draw();
if (lab.data.live) {
  document.getElementById("live").hidden = false;
  follow("");
}
