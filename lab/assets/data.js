// What the page was given, unpacked when it is asked for: curves of runs, bands of arms, rollouts, held-out problems.

const lab = { data: JSON.parse(document.getElementById("data").textContent), cache: new Map() };

// A value that is computed once.
function once(key, compute) {
  if (!lab.cache.has(key)) lab.cache.set(key, compute());
  return lab.cache.get(key);
}

// A metric of a run, one value (or null) for each of its steps; null where the run has none.
function curve(run, metric) {
  const packed = lab.data.runs[run].series[metric];
  return packed === undefined ? null : unpacked(packed, lab.data.runs[run].steps.length);
}

function unpacked(packed, length) {
  return Array.isArray(packed) ? packed : new Array(length).fill(packed.c);
}

// Each value's mean with those of the steps before it; a step without a value stays without.
function smoothed(values, window) {
  if (window <= 1) return values;
  const recent = [];
  return values.map(value => {
    if (value === null) return null;
    recent.push(value);
    if (recent.length > window) recent.shift();
    return recent.reduce((sum, next) => sum + next, 0) / recent.length;
  });
}

// The mean of an arm's seeds at each step that one of them has, with the lowest and the highest of them, or the ends of
// an interval over problems where there is one seed: {steps, mean, low, high, seeds}, or null.
function band(arm, metric, window) {
  return once(`band ${arm} ${metric} ${window}`, () => {
    const at = new Map();
    const runs = lab.data.arms[arm].runs.filter(run => curve(run, metric));
    for (const run of runs) {
      const values = smoothed(curve(run, metric), window);
      lab.data.runs[run].steps.forEach((step, i) => {
        if (values[i] !== null) at.set(step, [...(at.get(step) || []), values[i]]);
      });
    }
    if (at.size === 0) return null;
    const steps = [...at.keys()].sort((a, b) => a - b);
    const of = compute => steps.map(step => compute(at.get(step)));
    const found = {
      steps, seeds: runs.length, mean: of(all => all.reduce((sum, value) => sum + value, 0) / all.length),
      low: of(all => Math.min(...all)), high: of(all => Math.max(...all)),
    };
    const ends = runs.length === 1 && window <= 1 && lab.data.runs[runs[0]].bands[metric];
    if (ends) {
      const run = lab.data.runs[runs[0]], [low, high] = ends.map(end => unpacked(end, run.steps.length));
      found.low = steps.map(step => low[run.steps.indexOf(step)]);
      found.high = steps.map(step => high[run.steps.indexOf(step)]);
      found.problems = true;
    }
    return found;
  });
}

// The JSON of a script in the page, or null.
function embedded(id) {
  return once(id, () => {
    const script = document.getElementById(id);
    return script ? JSON.parse(script.textContent) : null;
  });
}

// The rollouts of a run on the page: [{step, of, groups}].
const transcripts = run => embedded(`transcripts-${run}`) || [];

// The held-out problems of a run: {steps, samples, verdicts, texts}, or null.
const problems = run => embedded(`problems-${run}`);

// Digits of base 90, as src/report/packing.rs writes them.
function digits(text) {
  const value = code => code - 35 - (code > 60) - (code > 92);
  return Array.from(text, character => value(character.charCodeAt(0)));
}

// Nats from two digits each.
function nats(text) {
  const values = digits(text), found = [];
  for (let i = 0; i < values.length; i += 2) found.push(25 * ((values[i] * 90 + values[i + 1]) / 8099) ** 2);
  return found;
}

// What is known of a completion's tokens: [{text, p, entropy}], the prefilled start first and without p; null if nothing.
function tokens(text) {
  if (!text.by) return null;
  const lengths = digits(text.by.p), surprise = nats(text.by.l), entropy = nats(text.by.e);
  let at = text.by.s;
  const found = at > 0 ? [{ text: text.t.slice(0, at) }] : [];
  lengths.forEach((length, i) => {
    found.push({ text: text.t.slice(at, at + length), p: Math.exp(-surprise[i]), entropy: entropy[i] });
    at += length;
  });
  if (at < text.t.length) found.push({ text: text.t.slice(at) });
  return found;
}
