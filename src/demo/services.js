// The services: their state, then each change. Whatever was missed, another state replaces the table.
const TABLE = "/events/services";
const services = new Map();
let table, tableChanged = false;

function connectTable() {
  table = new EventSource(TABLE);
  table.onerror = () => { if (table.readyState === EventSource.CLOSED) setTimeout(connectTable, RETRY_MAX_MS); };
  table.addEventListener("snapshot", (e) => {
    services.clear();
    for (const [id, text] of Object.entries(parse(e.data))) services.set(id, parse(text));
    changedTable();
  });
  table.onmessage = (e) => {
    const row = parse(e.data);
    if (typeof row.id === "string") { services.set(row.id, row); changedTable(); }
  };
}

function changedTable() { tableChanged = true; schedule(); }

function drawTable() {
  if (!tableChanged) return;
  tableChanged = false;
  $("services").hidden = !services.size;
  $("services").querySelector("tbody").replaceChildren(...[...services.keys()].sort().map((id) => {
    const { state, latency_ms } = services.get(id);
    const tr = tableRow({ name: id, health: state, latency: typeof latency_ms === "number" ? `${latency_ms} ms` : "–" });
    tr.dataset.state = state;
    return tr;
  }));
}
