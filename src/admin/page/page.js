// What /overview says, once a second, and how the page itself fares.
const STALE_MS = 3500;
const counts = { events: [], deliveries: [] };
const gapsSeen = [];  // of the last minute
let last = null, state = "connecting", words = "", before = null, locked = false;
const overview = new Feed("overview", { event: (name, data) => { if (name === "overview") showOverview(data); }, state: feedState });

function facts(list, pairs) {
  const wanted = pairs.filter(([, value]) => value != null && value !== "");
  while (list.children.length > wanted.length) list.lastChild.remove();
  wanted.forEach(([name, value], i) => {
    const div = list.children[i] ?? list.appendChild(make("div"));
    if (!div.firstChild) div.append(make("dt"), make("dd"));
    write(div.firstChild, name);
    write(div.lastChild, value);
  });
}

const size = (bytes) => bytes < 1 << 20 ? `${(bytes / 1024).toFixed(bytes ? 1 : 0)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;

function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([unit]) => seconds >= unit), [unit, name] = parts[Math.max(at, 0)];
  const rest = parts[at + 1] && Math.floor(seconds % unit / parts[at + 1][0]);
  return `${Math.floor(seconds / unit)} ${name}${at >= 0 && rest ? ` ${rest} ${parts[at + 1][1]}` : ""}`;
}

function showOverview(data) {
  const { now_ms: at, totals, latency, connections } = data;
  last = data;
  feedState("live");
  $("board").hidden = false;
  $("ask").hidden = true;
  const eventRate = speed(counts.events, at, totals.entries), deliveryRate = speed(counts.deliveries, at, totals.deliveries);
  set("version", `${data.version}, up ${span(data.uptime_seconds)}`);
  set("clients", number(data.clients.now));
  set("clients-more", `of ${number(data.clients.limit)}`);
  set("events", rate(eventRate));
  set("deliveries", rate(deliveryRate));
  set("deliveries-more", `a second; ${number(totals.deliveries)} in all`);
  if (latency.p99_ms != null || !latencyIsFresh(at)) showLatency(latency, at);
  showGaps(totals.gaps, at);
  set("readers", number(data.readers.now));
  set("readers-more", `with a reader, of ${number(data.readers.limit)}`);
  showRedis(data);
  $("draining").hidden = !data.draining;
  facts($("facts"), [
    ["Clients", `${number(data.clients.now)} on ${number(data.readers.now)} stream keys`],
    ["Came so far", `${number(connections.http1_accepted)} over HTTP/1, ${number(connections.http2_accepted)} over HTTP/2`],
    ["HTTP/2 and TLS", `${number(connections.kept_by_hyper)} connections`],
    ["No streams yet", `${number(data.pending.now)} of ${number(data.pending.limit)}`],
    ["Replays", `${number(data.replays.now)} of ${number(data.replays.limit)}`],
    ["Memory of streams", `${size(data.rings.bytes)} of ${size(data.rings.limit_bytes)}`],
    ...readersBy(data.streams).map(([server, count]) => [`Readers at ${server}`, number(count)]),
    ["Connections of readers", `${number(data.source.connections.reader)} of one each, ${number(data.source.connections.shared)} shared`],
    ...data.source.links.map(({ server, in_use, idle }) => [`Links to ${server}`, `${in_use} in use, ${idle} idle`]),
    ["Source", data.source.place],
  ]);
  showStreams(data.streams, at, data.streams_left_out);
  showFacts();
  const now = before && at > before.at && totals.deliveries >= before.deliveries
    ? (totals.deliveries - before.deliveries) * 1000 / (at - before.at) : null;
  if (now !== null) addPoint({ at, deliveries: now, p50: latency.p50_ms, p99: latency.p99_ms });
  before = { at, deliveries: totals.deliveries };
}

// How many of the streams that are shown are read from each server.
function readersBy(streams) {
  const counts = new Map();
  for (const { server } of streams) if (server) counts.set(server, (counts.get(server) ?? 0) + 1);
  return [...counts].sort();
}

let latencyAt = 0;
const latencyIsFresh = (at) => at - latencyAt < 10000;

// A quiet second does not take the last value from the tile; ten do.
function showLatency({ p50_ms, p99_ms }, at) {
  if (p99_ms != null) latencyAt = at;
  set("latency", milliseconds(p99_ms));
  set("latency-more", p99_ms == null ? "no deliveries" : `p50 ${milliseconds(p50_ms)}`);
}

function showGaps(total, at) {
  gapsSeen.push({ at, total });
  while (gapsSeen.length > 1 && at - gapsSeen[0].at > 60000) gapsSeen.shift();
  const fresh = Math.max(0, total - gapsSeen[0].total);
  set("gaps", number(total));
  set("gaps-more", fresh ? `${number(fresh)} in the last minute` : total ? "none in the last minute" : "nothing was missed");
  $("gaps").parentElement.classList.toggle("alarm", fresh > 0);
}

// Readers notice that Redis is away before the probe does.
function showRedis({ source, streams }) {
  const away = streams.filter(({ reader }) => reader === "away").length;
  const name = source.place === "memory:" ? "Source" : "Redis";
  if (!source.seen) return pill($("redis"), "warn", `${name} has not answered yet`);
  if (!source.up) return pill($("redis"), "bad", `${name} is away`);
  if (away) return pill($("redis"), "warn", `${name} is away for ${number(away)} of ${number(streams.length)} streams`);
  pill($("redis"), "good", `${name} answers`);
}

function feedState(next, why, status) {
  state = next;
  words = why ?? "";
  locked = next === "stopped" && status === 401;
  if (locked) return askForToken();
  showState();
}

function showState() {
  if (locked) return;
  const silent = last ? Date.now() - overview.heardAt : 0, stale = state !== "live" ? !!last : silent > STALE_MS;
  $("board").toggleAttribute("data-stale", stale);
  const shown = { connecting: ["wait", "Connecting"], waiting: ["warn", "Reconnecting"], stopped: ["bad", "Not shown"],
    live: stale ? ["warn", "Stale"] : ["good", "Live"] }[state];
  pill($("feed"), ...shown);
  // What Redis did then says nothing of now.
  if (stale) $("redis").hidden = true;
  const left = Math.ceil((overview.retryAt - Date.now()) / 1000);
  const age = stale && silent >= 1000 ? `last heard ${span(Math.round(silent / 1000))} ago` : "";
  set("detail", [words, state === "waiting" && left > 0 ? `next try in ${left} s` : "", age].filter(Boolean).join("; "));
  $("reconnect").hidden = state === "live" ? !stale : state === "connecting";
  document.title = `${state === "live" && !stale ? `${number(last?.clients.now)} clients` : shown[1]} · ssegate`;
}

function askForToken() {
  tail?.stop();
  $("board").hidden = true;
  $("ask").hidden = false;
  set("refused", sessionStorage.getItem(TOKEN) ? "This token is not the one." : "");
  sessionStorage.removeItem(TOKEN);
  pill($("feed"), "wait", "Locked");
  set("detail", "");
  $("reconnect").hidden = true;
  $("token").value = "";
  $("token").focus();
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  // Kept for this tab alone.
  sessionStorage.setItem(TOKEN, $("token").value.trim());
  overview.start();
};
$("follow").onsubmit = (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  if (key) follow(key);
  $("tail-title").focus();
};
for (const button of document.querySelectorAll("[data-sort]")) button.onclick = () => sortBy(button.dataset.sort, true);
$("sort").onchange = () => sortBy($("sort").value, false);
$("filter").oninput = () => { needle = $("filter").value.trim().toLowerCase(); arrange(); };
$("rows").onkeydown = moveFocus;
$("pause").onclick = () => setPaused(!paused);
$("clear").onclick = clearLog;
$("close").onclick = close;
$("tail").onkeydown = (event) => { if (event.key === "Escape" && followed !== null) close(); };
$("reconnect").onclick = () => { overview.failures = 0; overview.start(); };
$("numbers").ontoggle = drawNumbers;
addEventListener("online", () => { if (state === "waiting") overview.start(); });
addEventListener("resize", drawCharts);
setInterval(showState, 1000);
overview.start();
