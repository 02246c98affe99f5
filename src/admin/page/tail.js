// The live tail of one stream: what its readers are told, newest first. Payloads are text, whatever they hold.
const KEPT = 300, SHORT_CHARS = 240;
const known = new Set();  // ids of the newest entries
const REASONS = { trimmed: "trimmed before it was read", deleted: "deleted before it was read", reset: "the stream began anew",
  oversize: "larger than source.max_entry", limit: "beyond what may be replayed", unknown: "an id that is none of this stream's" };
let tail = null, connected = true, paused = false, waiting = [], missed = 0;

function follow(key) {
  tail?.stop();
  followed = key;
  connected = true;
  known.clear();
  clearLog();
  setPaused(false);
  set("tail-title", key);
  $("tail-title").title = key;
  for (const id of ["pause", "clear", "close", "log"]) $(id).hidden = false;
  $("follow").hidden = true;
  tail = new Feed(`tail/${encodeURIComponent(key)}`, { event: keep, state: tailState });
  tail.start();
  showFacts();
  rows.forEach(showRow);
  $("tail").scrollIntoView({ block: innerWidth < 1080 ? "start" : "nearest" });
}

function close() {
  tail?.stop();
  const key = followed;
  tail = followed = null;
  clearLog();
  set("tail-title", "Live tail");
  $("tail-title").removeAttribute("title");
  for (const id of ["pause", "clear", "close", "log", "tail-facts", "tail-state"]) $(id).hidden = true;
  $("follow").hidden = false;
  set("no-log", "Choose a stream, or name a key that a route reads.");
  rows.forEach(showRow);
  (rows.get(key)?.button ?? $("key")).focus();
}

function tailState(state, words) {
  const shown = { connecting: ["wait", "Connecting"], waiting: ["warn", "Reconnecting"], stopped: ["bad", "Stopped"] }[state];
  pill($("tail-state"), ...(shown ?? ["good", "Live"]));
  // Once, not with each try.
  if (state === "waiting" && connected) keepControl({ type: "lost", words });
  connected = state === "live" || (connected && state === "connecting");
  if (state === "stopped") keepControl({ type: "stopped", words });
}

function keep(name, data) {
  tailState("live");
  if (name === "control") return keepControl(data);
  // After a loss the tail begins with what is in memory, some of which was shown before.
  if (known.has(data.id)) return;
  known.add(data.id);
  if (known.size > 2 * KEPT) known.delete(known.values().next().value);
  add({ entry: data });
}

const keepControl = (control) => add({ control: { ...control, at: Date.now() } });

function add(item) {
  if (!paused) return show([item]);
  waiting.push(item);
  if (waiting.length > KEPT) missed += waiting.length - KEPT;
  waiting = waiting.slice(-KEPT);
  showPause();
}

function show(items) {
  const log = $("log");
  for (const item of items) log.prepend(item.entry ? entryItem(item.entry) : controlItem(item.control));
  while (log.children.length > KEPT) log.lastChild.remove();
  $("no-log").hidden = log.children.length > 0;
}

function clock(ms) {
  const at = new Date(ms), pad = (n, width = 2) => String(n).padStart(width, "0");
  return isNaN(at) ? "–" : `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${pad(at.getMilliseconds(), 3)}`;
}

function entryItem({ id, event, data, bytes, cut }) {
  const li = make("li", "new"), head = make("div", "head");
  // Ids below this (2001) are no times.
  const ms = parseInt(id, 10), time = ms > 1e12 ? clock(ms) : "";
  head.append(make("span", "", time), make("span", "", event.slice(0, 80)), make("span", "id", id));
  if (cut) head.append(make("span", "", `cut; ${number(bytes)} bytes in all`));
  li.append(head);
  if (data.length <= SHORT_CHARS && !data.includes("\n")) {
    li.append(make("div", "data", data));
    return li;
  }
  const details = make("details"), summary = make("summary");
  summary.append(make("span", "data", `${data.slice(0, SHORT_CHARS).replaceAll("\n", " ")}…`));
  details.append(summary, make("div", "data", data));
  li.append(details);
  return li;
}

function controlItem(control) {
  const li = make("li", "control"), [kind, name, text] = describe(control);
  const mark = { bad: "✕", warn: "▲", good: "●" }[kind] ?? "○";
  li.dataset.kind = kind;
  li.dataset.type = control.type;
  const words = make("div");
  words.append(make("b", "", `${mark} ${name}`), text);
  const head = make("div", "head");
  head.append(make("span", "", clock(control.at)));
  if (control.id) head.append(make("span", "id", control.id));
  li.append(head, words);
  return li;
}

function describe(control) {
  const { type, reason, after, next, lost, at_most, replayed, up, seconds, entries, words } = control;
  switch (type) {
    case "live": return ["good", "Live", replayed ? `after ${number(replayed)} from memory` : "from here on"];
    case "gap": return ["bad", "Gap", [REASONS[reason] ?? reason, lost != null ? `${number(lost)} lost`
      : at_most != null ? `at most ${number(at_most)} lost to one reader` : "how many were lost is unknown",
      after && `after ${after}`, next && `goes on with ${next}`].filter(Boolean).join(", ")];
    case "source": return up ? ["good", "Redis is back", ""] : ["warn", "Redis is away", "readers wait for it, and stay"];
    case "unavailable": return ["bad", "Unavailable", String(reason)];
    case "drain": return ["warn", "Drain", "the gateway stops, readers come back elsewhere"];
    case "expiring": return ["warn", "Expiring", `in ${seconds} s`];
    case "left_out": return ["wait", "Left out", `${number(entries)} entries, too many to show`];
    case "missed": return ["wait", "Left out", `${number(entries)} that came while this was paused`];
    case "lost": return ["warn", "Not connected", `${words}; this page comes back by itself`];
    case "stopped": return ["bad", "Stopped", words];
    default: return ["wait", "Control", JSON.stringify(control)];
  }
}

function setPaused(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  if (!on) {
    if (missed) waiting.unshift({ control: { type: "missed", entries: missed, at: Date.now() } });
    show(waiting);
    waiting = [];
    missed = 0;
  }
  showPause();
}

const showPause = () => set("pause", paused ? `Resume (${number(waiting.length + missed)} new)` : "Pause");

function clearLog() {
  $("log").replaceChildren();
  waiting = [];
  missed = 0;
  set("no-log", "Nothing yet. What comes from now on is shown.");
  $("no-log").hidden = false;
}

function showFacts() {
  const stream = rows.get(followed)?.stream;
  $("tail-facts").hidden = !stream;
  if (!stream) return;
  const behind = stream.followers.past ? `${number(stream.followers.past)} in the past` : stream.followers.behind_entries_most
    ? `${number(stream.followers.behind_entries_most)} entries at most` : "none";
  facts($("tail-facts"), [
    ["Last id", stream.last_id ?? "not known"], ["In memory", `${number(stream.ring_entries)} entries`],
    ["Clients behind", behind], ["Reads from", stream.server ?? "–"], ["Looking on", number(stream.onlookers)],
    ["Error", stream.error_text],
  ]);
}

