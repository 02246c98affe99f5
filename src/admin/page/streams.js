// The table of streams: rows stay the same elements while their numbers change, so focus stays, too.
const RATE_MS = 5000;
const READERS = { up: "good", starting: "wait", away: "bad", refused: "bad" };
const WAITS = { slow_clients: "waits for slow clients", memory: "waits for memory (ring.total_bytes)", answer: "waits for an answer" };
const rows = new Map();  // stream key -> { stream, tr, seen, rate }
let sorted = { by: "clients", down: true }, needle = "", followed = null;

// How fast a count goes up, over the last seconds; null until that can be told.
function speed(seen, at, count) {
  // It began anew, as after a restart.
  if (seen.length && count < seen.at(-1).count) seen.length = 0;
  seen.push({ at, count });
  while (seen.length > 2 && at - seen[1].at >= RATE_MS) seen.shift();
  const first = seen[0], took = at - first.at;
  return took > 0 ? Math.max(0, count - first.count) * 1000 / took : null;
}

function newRow(key) {
  const tr = make("tr"), button = make("button", "", key);
  tr.setAttribute("role", "row");
  const labels = { key: "", clients: "Clients", rate: "Events/s", lag: "Lag", gaps: "Gaps", reader: "" };
  const cells = {};
  for (const [name, label] of Object.entries(labels)) {
    const td = cells[name] = make("td", label ? "number" : name);
    td.setAttribute("role", "cell");
    if (label) td.dataset.label = label;
    tr.append(td);
  }
  button.type = "button";
  button.title = key;
  button.tabIndex = -1;
  cells.key.append(button);
  cells.reader.append(make("span", "pill"), make("small"));
  tr.onclick = () => follow(key);
  return { tr, button, cells, seen: [], rate: null };
}

function showStreams(streams, at, leftOut) {
  const there = new Set();
  for (const stream of streams) {
    there.add(stream.key);
    if (!rows.has(stream.key)) rows.set(stream.key, newRow(stream.key));
    const row = rows.get(stream.key);
    row.stream = stream;
    row.rate = speed(row.seen, at, stream.entries);
    showRow(row);
  }
  for (const [key, row] of rows) {
    if (there.has(key)) continue;
    row.tr.remove();
    rows.delete(key);
  }
  $("left-out").hidden = !leftOut;
  set("left-out", `${number(streams.length)} streams, those with the most clients; ${number(leftOut)} more are not shown.`);
  arrange();
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showRow({ stream, tr, cells, rate: perSecond }) {
  write(cells.clients, number(stream.clients));
  write(cells.rate, rate(perSecond));
  write(cells.lag, number(stream.lag_entries));
  write(cells.gaps, number(stream.gaps));
  cells.gaps.classList.toggle("alarm", stream.gaps > 0);
  const [state, why] = cells.reader.children, slow = stream.reader === "up" && WAITS[stream.waits_for];
  pill(state, slow ? "warn" : READERS[stream.reader] ?? "wait", stream.reader);
  write(why, stream.error ?? slow ?? "");
  const title = [stream.reader, stream.error_text, slow, readsFrom(stream)].filter(Boolean).join("; ");
  if (cells.reader.title !== title) cells.reader.title = title;
  if (stream.key === followed) tr.setAttribute("aria-current", "true");
  else tr.removeAttribute("aria-current");
}

// The server, and which connection to it; nothing for the embedded source.
function readsFrom({ server, connection }) {
  const over = connection && `, ${connection.shared ? "shared connection" : "connection"} ${connection.number}`;
  return server && `reads from ${server}${over ?? ""}`;
}

const VALUES = {
  key: ({ stream }) => stream.key, clients: ({ stream }) => stream.clients, rate: (row) => row.rate ?? 0,
  lag: ({ stream }) => stream.lag_entries ?? -1, gaps: ({ stream }) => stream.gaps, reader: ({ stream }) => stream.reader,
};

// Puts the rows that match in order. Rows that stay where they are are not touched.
function arrange() {
  const value = VALUES[sorted.by], sign = sorted.down ? -1 : 1;
  const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  const shown = [...rows.values()].filter(matches)
    .sort((a, b) => sign * order(value(a), value(b)) || order(a.stream.key, b.stream.key));
  const body = $("rows"), focus = body.contains(document.activeElement) ? document.activeElement : null;
  shown.forEach(({ tr }, i) => { if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] ?? null); });
  while (body.children.length > shown.length) body.lastChild.remove();
  if (focus && focus !== document.activeElement) (body.contains(focus) ? focus : $("filter")).focus({ preventScroll: true });
  // One of them is reached by Tab, the others from there by arrows.
  const buttons = shown.map(({ button }) => button);
  if (buttons.length && !buttons.some((button) => button.tabIndex === 0)) buttons[0].tabIndex = 0;
  for (const { button } of rows.values()) if (!buttons.includes(button)) button.tabIndex = -1;
  $("no-rows").hidden = shown.length > 0;
  set("no-rows", rows.size ? "No stream matches the filter." : "Nobody follows a stream. A stream is listed while it has clients, and a little longer.");
  for (const button of document.querySelectorAll("[data-sort]")) {
    const mine = button.dataset.sort === sorted.by, th = button.parentElement;
    if (mine) th.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    else th.removeAttribute("aria-sort");
  }
  $("sort").value = sorted.by;
}

function matches({ stream }) {
  return `${stream.key} ${stream.reader} ${stream.error ?? ""}`.toLowerCase().includes(needle);
}

function sortBy(by, toggle) {
  const names = by === "key" || by === "reader";
  sorted = { by, down: toggle && sorted.by === by ? !sorted.down : !names };
  arrange();
}

// From a row's button to another one's.
function moveFocus(event) {
  const buttons = [...$("rows").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || to === undefined || !buttons[to]) return;
  event.preventDefault();
  for (const button of buttons) button.tabIndex = -1;
  buttons[to].tabIndex = 0;
  buttons[to].focus();
}

