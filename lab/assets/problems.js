// A held-out problem at two steps, with what changed between its completions, and its verdicts at all of them.

function problemsTab() {
  const runs = lab.data.runs.map((run, index) => [index, run]).filter(([index]) => problems(index));
  if (runs.length === 0) {
    return element("p", {}, "No run has evaluated held-out problems: eval.problems says how many.");
  }
  const run = runs.some(([index]) => index === state.run) ? state.run : runs[0][0];
  const { steps, samples, verdicts, texts } = problems(run);
  const questions = lab.data.questions[lab.data.runs[run].questions], withTexts = texts.map(([step]) => step);
  const a = closest(withTexts, state.a ?? withTexts[0]);
  const b = closest(withTexts, state.b ?? withTexts[withTexts.length - 1]);
  const verdict = (step, problem) => verdicts[steps.indexOf(step)].slice(problem * samples, (problem + 1) * samples);
  const right = all => all.includes("1");
  const kinds = {
    all: () => true,
    gained: problem => !right(verdict(a, problem)) && right(verdict(b, problem)),
    lost: problem => right(verdict(a, problem)) && !right(verdict(b, problem)),
    "never right": problem => !right(verdict(a, problem)) && !right(verdict(b, problem)),
  };
  const onPage = problem => (problem + 1) * samples <= texts[0][1].length;
  const listed = questions.map((_, problem) => problem).filter(onPage).filter(kinds[state.kind]);
  const problem = listed.includes(state.problem) ? state.problem : listed[0];
  const kindNames = Object.keys(kinds).map(kind => [kind, kind === "all" ? `all ${questions.length}` : kind]);
  const names = listed.map(index => [index, `${index + 1}: ${questions[index].slice(0, 60)}`]);
  const bar = element("div", { class: "bar" },
    choice("Run", runs.map(([index, run]) => [index, runName(run)]), run, value => go({ run: +value })),
    choice("Show", kindNames, state.kind, kind => go({ run, kind })),
    choice("Problem", names, problem, value => go({ run, problem: +value })),
    choice("From step", withTexts, a, value => go({ run, problem, a: +value })),
    choice("to step", withTexts, b, value => go({ run, problem, b: +value })));
  const counts = element("p", { class: "note" }, `${listed.length} problems listed; ${texts.length} of `,
    `${steps.length} evaluations have their texts on this page.`);
  if (problem === undefined) return element("div", {}, bar, counts);
  const strip = element("div", { class: "strip" }, steps.map(step => {
    const all = verdict(step, problem), has = withTexts.includes(step);
    return element("button", {
      class: right(all) ? "right" : "wrong", disabled: !has, onclick: () => go({ run, problem, b: step }),
      title: has ? "Compare with this step" : "The page has no text of this step",
    }, samples === 1 ? `${step}` : `${step}: ${all.split("1").length - 1}/${samples}`);
  }));
  const tries = Array.from({ length: samples }, (_, sample) => problem * samples + sample);
  return element("div", {}, bar, element("h2", {}, questions[problem]), strip,
    tries.map(at => pair(texts, at, a, b, verdicts, steps)), counts);
}

// The two completions side by side: what only the first has is struck, what only the second has is added.
function pair(texts, at, a, b, verdicts, steps) {
  const text = step => texts.find(([found]) => found === step)[1][at];
  const parts = difference(text(a), text(b));
  const box = (step, without, name) => {
    const verdict = { 1: "right", 0: "wrong", "-": "not judged" }[verdicts[steps.indexOf(step)][at]];
    const kept = parts.filter(([kind]) => kind !== without);
    const body = kept.map(([kind, part]) => kind === 0 ? part : element(name, {}, part));
    const head = [element("b", { class: className(verdict) }, verdict), element("span", {}, `step ${step}`)];
    return element("article", { class: `text ${className(verdict)}` },
      element("header", {}, head), element("div", { class: "body" }, body));
  };
  return element("div", { class: "two" }, box(a, 1, "del"), box(b, -1, "ins"));
}
