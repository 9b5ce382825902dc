// The rollouts of a step: a group side by side, or all of the step, with what each token was worth under the pointer.

// Spans are made for this many tokens at most; longer views show plain text.
const MOST_TOKENS = 40000;

function rolloutsTab() {
  const runs = lab.data.runs.map((run, index) => [index, run]).filter(([, run]) => run.texts.length > 0);
  if (runs.length === 0) {
    return element("p", {}, "No run has kept rollouts: save.rollouts_every says how often a run keeps some.");
  }
  const run = runs.some(([index]) => index === state.run) ? state.run : runs[0][0];
  const steps = transcripts(run), last = steps[steps.length - 1].step;
  const step = closest(steps.map(found => found.step), state.step ?? last);
  const shown = steps.find(found => found.step === step);
  const group = Math.min(state.group, shown.groups.length - 1);
  const groups = group < 0 ? shown.groups : [shown.groups[group]];
  const at = steps.indexOf(shown);
  const move = by => go({ run, step: steps[Math.max(0, Math.min(steps.length - 1, at + by))].step });
  const names = shown.groups.map((found, index) => [index, `${index + 1}: ${found.q.slice(0, 40)}`]);
  const bar = element("div", { class: "bar" },
    choice("Run", runs.map(([index, run]) => [index, runName(run)]), run, value => go({ run: +value })),
    element("button", { onclick: () => move(-1), title: "The step before" }, "←"),
    choice("Step", steps.map(found => found.step), step, value => go({ run, step: +value })),
    element("button", { onclick: () => move(1), title: "The next step" }, "→"),
    choice("Group", [...names, [-1, "all of the step"]], group, value => go({ run, step, group: +value })));
  const kept = lab.data.runs[run].kept;
  const note = element("p", { class: "note" },
    `${shown.groups.length} of ${shown.of} groups of the step and ${steps.length} of ${kept} kept steps are on this page. `,
    `Probability and entropy are those that a token was sampled with, at the run's temperature.`);
  const texts = groups.flatMap(found => found.r.map(text => [found, text])).filter(([, text]) => passesFilters(text));
  const count = groups.reduce((sum, found) => sum + found.r.length, 0);
  const spans = texts.reduce((sum, [, text]) => sum + text.n, 0) <= MOST_TOKENS;
  const list = element("div", {});
  for (const found of groups) {
    const own = texts.filter(([of]) => of === found);
    if (own.length === 0) continue;
    const answer = found.answer ? element("span", { class: "faint" }, `  answer: ${found.answer}`) : null;
    list.append(element("h2", {}, found.q, answer),
      element("div", { class: "texts" }, own.map(([, text]) => textBox(text, spans))));
  }
  return element("div", {}, bar, filterBar(),
    element("p", { id: "shown", class: "note" }, `${texts.length} of ${count} completions shown`), list, note);
}

function filterBar() {
  const value = event => event.target.value === "" ? null : +event.target.value;
  const number = (label, name) => element("label", {}, label, element("input", {
    type: "number", step: "any", value: state[name] ?? "", name, onchange: event => go({ [name]: value(event) }),
  }));
  const words = element("input", {
    type: "search", name: "words", value: state.words, placeholder: "in the text",
    onchange: event => go({ words: event.target.value }),
  });
  const mark = event => go({ marks: event.target.checked });
  const marks = element("input", { type: "checkbox", checked: state.marks, onchange: mark });
  const none = { verdict: "any", rmin: null, rmax: null, nmin: null, nmax: null, words: "" };
  return element("div", { class: "bar" },
    choice("Verdict", ["any", ...lab.data.verdicts], state.verdict, verdict => go({ verdict })),
    number("Reward from", "rmin"), number("to", "rmax"), number("Tokens from", "nmin"), number("to", "nmax"),
    element("label", {}, "Words", words), element("button", { onclick: () => go(none) }, "Clear"),
    choice("Colour by", ["nothing", "probability", "entropy", "advantage"], state.overlay, overlay => go({ overlay })),
    element("label", {}, marks, "mark reflection"));
}

function passesFilters(text) {
  // What has no reward is within no bound.
  const within = (value, low, high) =>
    (low === null || (value !== null && value >= low)) && (high === null || (value !== null && value <= high));
  return (state.verdict === "any" || lab.data.verdicts[text.v] === state.verdict)
    && within(text.r, state.rmin, state.rmax) && within(text.n, state.nmin, state.nmax)
    && text.t.toLowerCase().includes(state.words.toLowerCase());
}

// A completion: verdict, reward, length, advantage, and its text.
function textBox(text, spans) {
  const verdict = lab.data.verdicts[text.v];
  const head = [element("b", { class: className(verdict) }, verdict), `reward ${short(text.r)}`, `${text.n} tokens`];
  if (text.a !== undefined) head.push(`advantage ${signed(text.a)}`);
  else head.push("not trained on");
  return element("article", { class: `text ${className(verdict)}` },
    element("header", {}, head.map(part => typeof part === "string" ? element("span", {}, part) : part)),
    bodyOf(text, spans), text.why ? element("div", { class: "note" }, text.why) : null);
}

function bodyOf(text, spans) {
  const body = element("div", { class: "body" }), known = spans ? tokens(text) : null;
  const marked = state.marks ? hits(text.t, lab.data.words) : [];
  const found = state.words ? hits(text.t, [[state.words, "any_case"]]) : [];
  const ranges = [...marked, ...found].sort((a, b) => a[0] - b[0]);
  let at = 0;
  for (const token of known || [{ text: text.t }]) {
    body.append(...pieces(token, at, ranges, text));
    at += token.text.length;
  }
  return body;
}

// A token, cut where a mark begins or ends within it.
function pieces(token, at, ranges, text) {
  const within = cut => cut > 0 && cut < token.text.length;
  const cuts = [...new Set(ranges.flat())].map(cut => cut - at).filter(within).sort((a, b) => a - b);
  const known = token.p !== undefined, shown = known ? event => tip(event, tokenTip(token, text)) : null;
  return [0, ...cuts].map((start, i) => {
    const piece = token.text.slice(start, cuts[i] ?? token.text.length);
    const marked = ranges.some(([from, to]) => from < at + start + piece.length && to > at + start);
    if (!known && !marked) return piece;
    const look = { class: marked && "hit", style: overlay(token, text) };
    return element("span", known ? { ...look, onmousemove: shown, onmouseleave: () => tip(null, "") } : look, piece);
  });
}

function overlay(token, text) {
  if (token.p === undefined) return null;
  const [strength, hue] = {
    nothing: [0, ""],
    probability: [1 - token.p, "var(--c1)"],
    entropy: [Math.min(1, (token.entropy ?? 0) / 2), "var(--c6)"],
    advantage: [Math.min(1, Math.abs(text.a ?? 0) / 2), text.a > 0 ? "var(--right)" : "var(--wrong)"],
  }[state.overlay] || [0, ""];
  if (strength < 0.005) return null;
  return `background: color-mix(in srgb, ${hue} ${Math.round(strength * 70)}%, transparent)`;
}

function tokenTip(token, text) {
  const p = token.p < 0.001 ? token.p.toExponential(1) : token.p.toFixed(3);
  const rows = [JSON.stringify(token.text), `probability  ${p}`];
  rows.push(token.entropy === undefined ? "entropy  not trained on" : `entropy  ${token.entropy.toFixed(3)} nats`);
  rows.push(text.a === undefined ? "advantage  not trained on" : `advantage  ${signed(text.a)}`);
  return rows.join("\n");
}

// The arm of a run, with its seed where there are several.
function runName(run) {
  const arm = lab.data.arms[run.arm];
  return arm.runs.length > 1 ? `${arm.name}, seed ${run.seed}` : arm.name;
}
