// Two charts of the last minutes, as SVG, and the same as numbers.
const POINTS = 120, SVG = "http://www.w3.org/2000/svg";
const points = [];  // a second each, newest last: { at, deliveries, p50, p99 }

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function addPoint(point) {
  points.push(point);
  if (points.length > POINTS) points.shift();
  drawCharts();
}

function drawCharts() {
  const last = points.at(-1), most = (name) => points.reduce((most, p) => Math.max(most, p[name] ?? 0), 0);
  const peak = most("deliveries"), worst = most("p99");
  drawChart($("deliveries-chart"), [{ name: "deliveries", area: true }], rate);
  drawChart($("latency-chart"), [{ name: "p50" }, { name: "p99" }], milliseconds);
  const deliveries = `now ${rate(last?.deliveries)}, at most ${rate(peak)}`;
  const latency = worst ? `p99 now ${milliseconds(last?.p99)}, at most ${milliseconds(worst)}` : "no deliveries yet";
  set("deliveries-said", deliveries);
  set("p99", `p99 ${milliseconds(last?.p99)}, at most ${milliseconds(worst || null)}`);
  set("p50", `p50 ${milliseconds(last?.p50)}`);
  $("deliveries-chart").setAttribute("aria-label", `Deliveries a second, the last two minutes: ${deliveries}`);
  $("latency-chart").setAttribute("aria-label", `Latency from entry to socket, the last two minutes: ${latency}`);
  if ($("numbers").open) drawNumbers();
}

// The first round number that is no less, and half of which is round.
function roundUp(n, least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(n, least)));
  return power * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= Math.max(n, least));
}

function drawChart(svg, lines, words) {
  const width = svg.clientWidth, height = svg.clientHeight;
  if (!width) return;
  const most = lines.reduce((most, { name }) => points.reduce((m, p) => Math.max(m, p[name] ?? 0), most), 0);
  const top = roundUp(most, lines[0].area ? 10 : 1), left = 52, base = height - 18, plot = base - 6;
  const now = points.at(-1)?.at ?? 0;
  const x = (point) => width - (now - point.at) / 1000 * (width - left) / (POINTS - 1);
  const y = (value) => base - value / top * plot;
  const shapes = [0, 0.5, 1].flatMap((share) => {
    const at = Math.round(y(top * share)) + 0.5;
    return [
      shape("line", { class: "grid", x1: left, x2: width, y1: at, y2: at }),
      shape("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, share ? words(top * share) : "0"),
    ];
  });
  shapes.push(shape("text", { x: left, y: height - 2 }, "2 min ago"), shape("text", { x: width, y: height - 2, "text-anchor": "end" }, "now"));
  for (const { name, area } of lines) {
    for (const run of runs(name, x)) {
      const line = run.map((point, i) => `${i ? "L" : "M"}${x(point).toFixed(1)} ${y(point[name]).toFixed(1)}`).join("");
      if (area) shapes.push(shape("path", { class: "area", d: `${line}L${x(run.at(-1)).toFixed(1)} ${base}L${x(run[0]).toFixed(1)} ${base}Z` }));
      // A single point is a short dash.
      shapes.push(shape("path", { class: name === "p50" ? "second" : "first", d: run.length > 1 ? line : `${line}h2` }));
    }
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...shapes);
}

// Points that follow each other without a second missing in between.
function runs(name, x) {
  const runs = [];
  let before;
  for (const point of points) {
    if (point[name] != null && x(point) >= 0) {
      if (before && point.at - before.at < 3000) runs.at(-1).push(point);
      else runs.push([point]);
      before = point;
    } else if (point[name] == null) before = undefined;
  }
  return runs;
}

function drawNumbers() {
  const now = points.at(-1)?.at ?? 0;
  const rows = points.toReversed().filter((_, i) => i % 10 === 0).map((point) => {
    const row = make("tr");
    for (const text of [Math.round((now - point.at) / 1000), rate(point.deliveries), milliseconds(point.p50), milliseconds(point.p99)]) {
      row.append(make("td", "", String(text)));
    }
    return row;
  });
  $("numbers").querySelector("tbody").replaceChildren(...rows);
}

