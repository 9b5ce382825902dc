// Small things that every part needs: elements, numbers for people, words that are highlighted, differences of texts.

// element("div", {class: "a", onclick: f}, child, "text", ...)
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== false));
  return made;
}

// A select whose options are [value, label] or plain values.
function choice(label, options, value, changed) {
  const made = options.map(option => {
    const [key, text] = Array.isArray(option) ? option : [option, option];
    return element("option", { value: key, selected: String(key) === String(value) }, String(text));
  });
  const name = label.toLowerCase().replace(/\W+/g, "-");
  return element("label", {}, label,
    element("select", { name, onchange: event => changed(event.target.value) }, made));
}

// Three digits that count.
function short(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(3);
}

const signed = value => (value > 0 ? "+" : "") + short(value);
const className = verdict => verdict.replace(/ /g, "-");

// Where words of the lists, or of the reader's own, stand in a text: [[start, end], ...]; words are [[word, rule], ...]
// with the rules of lab/src/words.rs.
function hits(text, words) {
  if (words.length === 0) return [];
  const longestFirst = [...words].sort((a, b) => b[0].length - a[0].length);
  const patterns = longestFirst.map(([word, rule]) => {
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return rule === "whole_word" ? `(?<!\\p{L})${escaped}(?!\\p{L})` : escaped;
  });
  const found = text.matchAll(new RegExp(patterns.join("|"), "giu"));
  return Array.from(found, match => [match.index, match.index + match[0].length]);
}

// The tip beside the pointer.
function tip(event, text) {
  const box = document.getElementById("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8);
  const fits = event.clientY + 18 + box.offsetHeight <= innerHeight;
  const top = fits ? event.clientY + 18 : event.clientY - box.offsetHeight - 10;
  box.style.left = `${Math.max(4, left)}px`;
  box.style.top = `${top}px`;
}

// The difference of two texts by words: [[kind, text], ...], kind -1 only in a, 0 in both, 1 only in b. The longest common
// subsequence of what is left between a common start and a common end; texts too long for its table are cut there alone.
function difference(a, b) {
  const words = text => text.match(/\s+|\w+|[^\s\w]/g) || [];
  const [left, right] = [words(a), words(b)];
  let start = 0, end = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start++;
  while (end < left.length - start && end < right.length - start
    && left[left.length - 1 - end] === right[right.length - 1 - end]) end++;
  const x = left.slice(start, left.length - end), y = right.slice(start, right.length - end);
  const middle = x.length * y.length > 4e6 ? [[-1, x.join("")], [1, y.join("")]] : common(x, y);
  const whole = [[0, left.slice(0, start).join("")], ...middle, [0, left.slice(left.length - end).join("")]];
  return whole.filter(([, text]) => text !== "").reduce((merged, [kind, text]) => {
    const last = merged[merged.length - 1];
    if (last && last[0] === kind) last[1] += text; else merged.push([kind, text]);
    return merged;
  }, []);
}

function common(x, y) {
  const width = y.length + 1, lengths = new Uint16Array((x.length + 1) * width), found = [];
  for (let i = x.length - 1; i >= 0; i--)
    for (let j = y.length - 1; j >= 0; j--)
      lengths[i * width + j] = x[i] === y[j]
        ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
  let i = 0, j = 0;
  while (i < x.length || j < y.length) {
    if (i < x.length && j < y.length && x[i] === y[j]) { found.push([0, x[i]]); i++; j++; }
    else {
      const leavesMore = i < x.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1];
      found.push(j >= y.length || leavesMore ? [-1, x[i++]] : [1, y[j++]]);
    }
  }
  return found;
}
