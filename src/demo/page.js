// The page: the connection, what arrives, and how it is drawn.
const STREAM = "/events/demo";
const LEVELS = ["low", "medium", "high", "critical", "other"];
const KEPT = 2000, ROWS = 200, CELL_CHARS = 2000, CHART_SECONDS = 60, RETRY_MS = 1000, RETRY_MAX_MS = 20000;
const $ = (id) => document.getElementById(id);
const set = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
const number = (n) => n.toLocaleString("en");

// The connection. EventSource comes back by itself after an end or a network error, with Last-Event-ID.
// On any status but 200 it gives up for good, and then this page starts another one.
let source, lastId = "", state = "connecting", reason = "", refusals = 0, retryTimer = 0, retryAt = 0;

function connect() {
  clearTimeout(retryTimer);
  source?.close();
  source = new EventSource(STREAM + (lastId ? "?last_event_id=" + encodeURIComponent(lastId) : "?last=50"));
  source.onopen = () => { reason = "open, catching up"; schedule(); };
  source.onerror = onLoss;
  source.onmessage = (e) => { setState("live"); lastId = e.lastEventId; onEvent(e.data); };
  source.addEventListener("ssegate", (e) => { lastId = e.lastEventId || lastId; onControl(e.data); });
}

function onLoss() {
  caughtUp = false;
  if (state === "live") note("lost", "Connection ended" + (lastId ? "; what comes after " + lastId + " will be asked for" : ""));
  if (source.readyState !== EventSource.CLOSED) return setState("reconnecting");
  if (state !== "lost") note("lost", "Refused; this page tries again by itself");
  const wait = Math.min(RETRY_MS * 2 ** refusals++, RETRY_MAX_MS) * (0.7 + 0.3 * Math.random());
  retryTimer = setTimeout(connect, wait);
  retryAt = Date.now() + wait;
  setState("lost");
}

function setState(next) {
  if (next === "live") { refusals = 0; reason = ""; }
  state = $("state").dataset.state = next;
  set("state", next[0].toUpperCase() + next.slice(1));
  schedule();
}

// What arrives is counted at once and drawn with the next frame.
let total = 0, replayed = 0, gaps = 0, lost = 0, lag = null, caughtUp = false;
const counts = Object.fromEntries(LEVELS.map((level) => [level, 0]));
const seconds = new Map();  // unix second -> events of each level
const items = [];           // newest last
let fresh = 0;              // of these, not in the table yet

function onEvent(data) {
  const item = read(data), now = Date.now(), at = parseInt(lastId, 10) || now, old = now - at > CHART_SECONDS * 1000;
  total += 1;
  counts[item.level] += 1;
  if (caughtUp) lag = Math.max(0, now - at);
  keep(item);
  if (old && !caughtUp) return;  // replayed from before the chart begins
  const second = Math.floor((old ? now : Math.min(at, now)) / 1000);
  if (!seconds.has(second)) seconds.set(second, LEVELS.map(() => 0));
  seconds.get(second)[LEVELS.indexOf(item.level)] += 1;
}

// A payload may be anything: what is no JSON object with these fields is shown as it came.
function parse(data) {
  try { return Object(JSON.parse(data)); } catch { return {}; }
}

function read(data) {
  const event = parse(data), text = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value)).slice(0, CELL_CHARS);
  const field = (name) => text(event[name] ?? "");
  const severity = field("severity"), known = LEVELS.includes(severity.toLowerCase());
  const time = clock(Date.parse(event.ts) || parseInt(lastId, 10) || Date.now());
  const cells = { time, level: severity || "–", source: field("source"), message: field("message") || text(data),
    rule: field("rule"), ip: field("src_ip"), user: field("user") };
  const search = Object.values(cells).join(" ").toLowerCase();
  return { kind: "event", id: lastId, level: known ? severity.toLowerCase() : "other", cells, search };
}

function onControl(data) {
  const control = parse(data);
  if (control.type === "ping") return;
  if (control.type === "live") { caughtUp = true; replayed += control.replayed || 0; setState("live"); }
  if (control.type === "gap") { gaps += 1; lost += control.lost ?? NaN; }
  const text = describe(control) || data.slice(0, CELL_CHARS);
  if (control.type === "drain" || control.type === "unavailable") reason = text;
  note(control.type || "unknown", text);
}

const GAPS = { reset: "the stream began anew, as after a restart", trimmed: "trimmed from the stream", deleted: "deleted from the stream",
  oversize: "too large to send", limit: "beyond what may be replayed", unknown: "the last event id is none of this stream's" };

function describe({ type, reason, after, next, lost, replayed, up }) {
  switch (type) {
    case "live": return replayed ? `Live, after ${number(replayed)} replayed` : "Live";
    case "gap": return `Gap: ${GAPS[reason] ?? reason}; ${lost == null ? "how much was lost is unknown" : number(lost) + " lost"}`
      + (after ? `, after ${after}` : "") + (next ? `, goes on with ${next}` : "");
    case "drain": return "The daemon is shutting down";
    case "unavailable": return "Not available now" + (reason ? `: ${reason}` : "");
    case "source": return up ? "The source is back" : "The source is away; waiting for it";
  }
}

const note = (type, text) => keep({ kind: "control", type, cells: { time: clock(Date.now()), control: text } });

function keep(item) {
  items.push(item);
  if (items.length > KEPT * 1.5) items.splice(0, items.length - KEPT);
  fresh = Math.min(fresh + 1, items.length);
  schedule();
}

function clock(ms) {
  const at = new Date(ms), pad = (n, width) => String(n).padStart(width, "0");
  return `${pad(at.getHours(), 2)}:${pad(at.getMinutes(), 2)}:${pad(at.getSeconds(), 2)}.${pad(at.getMilliseconds(), 3)}`;
}

// Drawing: once a frame at most, whatever arrives in between.
let scheduled = false, paused = false, needle = "";
const chosen = new Set();  // levels to show; none = all

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(draw);
}

function draw() {
  scheduled = false;
  if (!paused) { addRows(items.length - fresh, items.length); fresh = 0; }
  drawTable();
  drawNumbers();
  drawChart();
}

function drawNumbers() {
  set("total", number(total));
  set("replayed", `${replayed ? number(replayed) : "none"} replayed`);
  set("last-id", lastId || "–");
  set("lag", lag === null ? "–" : lag < 1000 ? `${lag} ms` : `${(lag / 1000).toFixed(1)} s`);
  set("gaps", number(gaps));
  set("lost", !gaps ? "nothing missed" : isNaN(lost) ? "loss unknown" : `${number(lost)} lost`);
  for (const button of $("levels").children) button.lastChild.textContent = number(counts[button.dataset.level]);
  const left = Math.ceil((retryAt - Date.now()) / 1000);
  set("detail", state === "lost" && left > 0 ? `next try in ${left} s` : reason);
  $("retry").hidden = state !== "reconnecting" && state !== "lost";
  set("pause", paused ? (fresh ? `Resume (${number(fresh)} new)` : "Resume") : "Pause");
}

function drawAgain() {
  $("log").replaceChildren();
  addRows(0, items.length - fresh);
  schedule();
}

function addRows(from, to) {
  const rows = document.createDocumentFragment();
  for (let i = to - 1; i >= from && rows.childElementCount < ROWS; i--) {
    if (matches(items[i])) rows.append(row(items[i]));
  }
  $("log").prepend(rows);
  while ($("log").childElementCount > ROWS) $("log").lastChild.remove();
  set("empty", total ? "Nothing matches the filter" : "Waiting for the first event");
  $("empty").hidden = $("log").childElementCount > 0;
}

function matches({ kind, level, search }) {
  return kind === "control" || ((!chosen.size || chosen.has(level)) && search.includes(needle));
}

function row({ kind, type, level, id, cells }) {
  const tr = tableRow(cells);
  Object.assign(tr.dataset, kind === "control" ? { kind, type } : { kind, level, id });
  if (kind === "control") tr.lastChild.colSpan = 6;
  return tr;
}

function tableRow(cells) {
  const tr = document.createElement("tr");
  tr.setAttribute("role", "row");
  for (const [name, value] of Object.entries(cells)) {
    const td = document.createElement("td");
    td.className = name;
    td.setAttribute("role", "cell");
    td.textContent = value;
    tr.append(td);
  }
  return tr;
}

const perSecond = (second) => (seconds.get(second) ?? []).reduce((sum, count) => sum + count, 0);

function drawChart() {
  const canvas = $("chart"), width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio;
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue("--" + name);
  const first = Math.floor(Date.now() / 1000) - CHART_SECONDS + 1, base = height - 16, plot = base - 8;
  let peak = 0, top = 10;
  for (let i = 0; i < CHART_SECONDS; i++) peak = Math.max(peak, perSecond(first + i));
  for (let i = 0; top < peak; i++) top *= i % 3 === 1 ? 2.5 : 2;  // 10, 20, 50, 100, …
  set("peak", number(peak));
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const g = canvas.getContext("2d");
  g.scale(ratio, ratio);
  g.font = "11px system-ui, sans-serif";
  const left = g.measureText(number(top)).width + 8, step = (width - left) / CHART_SECONDS;
  g.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    const y = Math.round(base - share * plot);
    g.fillStyle = colour("line");
    g.fillRect(left, y, width - left, 1);
    g.fillStyle = colour("soft");
    g.fillText(number(top * share), left - 6, y + 4);
  }
  g.fillText("now", width, height - 2);
  g.textAlign = "left";
  g.fillText(`${CHART_SECONDS} s ago`, left, height - 2);
  for (let i = 0; i < CHART_SECONDS; i++) {
    let y = base;
    (seconds.get(first + i) ?? []).forEach((count, level) => {
      g.fillStyle = colour(LEVELS[level]);
      y -= count / top * plot;
      g.fillRect(left + i * step + 0.5, y, step - 1, count / top * plot);
    });
  }
}

// Once a second, in a hidden tab too: the rate, the title, and what has left the chart.
function tick() {
  const now = Math.floor(Date.now() / 1000);
  const rate = ([1, 2, 3, 4, 5].reduce((sum, ago) => sum + perSecond(now - ago), 0) / 5).toFixed(1);
  for (const second of seconds.keys()) if (second <= now - CHART_SECONDS) seconds.delete(second);
  set("rate", rate);
  document.title = `${state === "live" ? rate + "/s" : $("state").textContent} · ssegate demo`;
  $("chart").setAttribute("aria-label", `Events per second, last minute: ${rate} now, at most ${$("peak").textContent}`);
  schedule();
  setTimeout(tick, 1000 - Date.now() % 1000);
}

for (const level of LEVELS) {
  const button = document.createElement("button");
  button.dataset.level = level;
  button.setAttribute("aria-pressed", "false");
  button.append(level, document.createElement("b"));
  button.onclick = () => {
    if (!chosen.delete(level)) chosen.add(level);
    button.setAttribute("aria-pressed", String(chosen.has(level)));
    drawAgain();
  };
  $("levels").append(button);
}
set("follow", `curl -N ${location.origin}${STREAM}`);
$("filter").oninput = () => { needle = $("filter").value.trim().toLowerCase(); drawAgain(); };
$("pause").onclick = () => { paused = !paused; $("pause").setAttribute("aria-pressed", String(paused)); schedule(); };
$("retry").onclick = () => { setState("reconnecting"); connect(); };
addEventListener("online", () => { if (state !== "live") connect(); });
addEventListener("resize", schedule);
connect();
connectTable();
tick();
