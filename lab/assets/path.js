// The way of each arm through two metrics, such as reward against length: ten steps a point, a ring at the first and a dot
// at the last.

function drawPath(host, keys, chart) {
  const [xName, yName] = [chart.left[0], chart.right[0]];
  const arms = lab.data.arms.map((_, arm) => arm).filter(arm => !state.hidden.includes(arm));
  const ways = arms.map(arm => {
    const { name } = lab.data.arms[arm];
    return { arm, metric: yName, name, stroke: colour(arm), dash: [], points: way(arm, xName, yName) };
  });
  const lines = ways.filter(line => line.points.length > 0);
  if (lines.length === 0) return void host.append("nothing to draw");
  const canvas = element("canvas", {});
  host.replaceChildren(canvas);
  keys.replaceChildren(...lines.map(key));
  const draw = () => paint(canvas, host, lines, [xName, yName]);
  draw();
  new ResizeObserver(draw).observe(host);
  canvas.addEventListener("mousemove", event => {
    const found = pointAt(canvas, lines, event);
    if (!found) return tip(event, "");
    const { from, to, x, y } = found.point;
    const rows = [`${found.line.name}, steps ${from} to ${to}`, `${xName}  ${short(x)}`, `${yName}  ${short(y)}`];
    tip(event, [...rows, "click for the rollouts"].join("\n"));
  });
  canvas.addEventListener("mouseleave", () => tip(null, ""));
  canvas.addEventListener("click", event => {
    const found = pointAt(canvas, lines, event);
    if (found) openStep(found.line, found.point.to);
  });
}

function way(arm, xName, yName) {
  const [x, y] = [band(arm, xName, 1), band(arm, yName, 1)];
  if (!x || !y) return [];
  const at = new Map(y.steps.map((step, i) => [step, y.mean[i]]));
  const both = x.steps.map((step, i) => [step, x.mean[i], at.get(step)]).filter(([, , value]) => value !== undefined);
  const points = [];
  for (let i = 0; i < both.length; i += 10) {
    const some = both.slice(i, i + 10), mean = which => some.reduce((sum, row) => sum + row[which], 0) / some.length;
    points.push({ from: some[0][0], to: some[some.length - 1][0], x: mean(1), y: mean(2) });
  }
  return points;
}

function paint(canvas, host, lines, names) {
  const [width, height, dense] = [host.clientWidth, host.clientHeight, devicePixelRatio || 1];
  canvas.width = width * dense; canvas.height = height * dense;
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  const draw = canvas.getContext("2d"), all = lines.flatMap(line => line.points);
  draw.scale(dense, dense);
  draw.font = "11px sans-serif"; draw.fillStyle = draw.strokeStyle = shade("faint"); draw.lineWidth = 0.5;
  const scale = (values, from, to) => {
    const [low, high] = uPlot.rangeNum(Math.min(...values), Math.max(...values), 0.1, true);
    return Object.assign(value => from + (value - low) / (high - low) * (to - from), { low, high });
  };
  const x = scale(all.map(point => point.x), 50, width - 12), y = scale(all.map(point => point.y), height - 34, 8);
  for (let i = 0; i <= 4; i++) {
    const [u, v] = [x.low + (x.high - x.low) * i / 4, y.low + (y.high - y.low) * i / 4];
    draw.textAlign = "center"; draw.fillText(short(u), x(u), height - 20);
    draw.textAlign = "right"; draw.fillText(short(v), 44, y(v) + 4);
    draw.strokeStyle = shade("line"); draw.beginPath(); draw.moveTo(50, y(v)); draw.lineTo(width - 12, y(v)); draw.stroke();
  }
  draw.textAlign = "center"; draw.fillText(`${names[0]}, with ${names[1]} upward`, width / 2, height - 5);
  for (const line of lines) {
    draw.strokeStyle = draw.fillStyle = line.stroke; draw.lineWidth = 1.8;
    draw.beginPath();
    for (const point of line.points) {
      point.at = [x(point.x), y(point.y)];
      draw.lineTo(...point.at);
    }
    draw.stroke();
    const dot = ({ at }, fill) => {
      draw.beginPath();
      draw.arc(...at, 4, 0, 7);
      draw.fillStyle = fill;
      draw.fill();
      draw.stroke();
    };
    dot(line.points[0], shade("panel"));
    dot(line.points[line.points.length - 1], line.stroke);
  }
}

function pointAt(canvas, lines, event) {
  const box = canvas.getBoundingClientRect(), [u, v] = [event.clientX - box.left, event.clientY - box.top];
  const away = ({ at }) => Math.hypot(at[0] - u, at[1] - v);
  const all = lines.flatMap(line => line.points.map(point => ({ line, point, away: away(point) })));
  const best = all.reduce((best, next) => next.away < best.away ? next : best);
  return best.away < 25 ? best : null;
}
