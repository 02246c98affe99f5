// Event streams over fetch: unlike EventSource it can send a token, and hears why it was refused.
const FIRST_RETRY_MS = 500, LAST_RETRY_MS = 10000, UNREAD_CHARS = 8 << 20;
const TOKEN = "ssegate.token";
const $ = (id) => document.getElementById(id);
const set = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const number = (n) => n == null ? "–" : n.toLocaleString("en");
const rate = (n) => n == null ? "–" : n < 9.95 ? n.toFixed(n && n < 0.095 ? 2 : 1).replace(/\.0+$/, "") : number(Math.round(n));
const milliseconds = (n) => n == null ? "–" : n < 0.995 ? `${n.toFixed(2)} ms` : n < 9.95 ? `${n.toFixed(1)} ms` : n < 999.5 ? `${Math.round(n)} ms` : `${(n / 1000).toFixed(1)} s`;

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function pill(element, state, text) {
  element.hidden = !text;
  if (element.dataset.state !== state) element.dataset.state = state;
  if (text && element.textContent !== text) element.textContent = text;
}

// One stream that comes back by itself. `on.event(name, data)` gets what comes, `on.state(state, words)`
// how it goes: connecting, live, waiting (it comes back), or stopped (it does not): then `words` say why.
class Feed {
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.failures = 0;
    this.retryAt = 0;
    this.heardAt = 0;
  }

  start() {
    clearTimeout(this.timer);
    this.abort?.abort();
    const abort = this.abort = new AbortController();
    this.on.state("connecting");
    this.read(abort.signal)
      .then(() => "The gateway ended the stream", (error) => error.stop ? error : String(error.message ?? error))
      .then((why) => {
        if (abort.signal.aborted) return;
        if (why.stop) return this.on.state("stopped", why.message, why.status);
        const wait = Math.min(FIRST_RETRY_MS * 2 ** this.failures++, LAST_RETRY_MS) * (0.75 + Math.random() / 2);
        this.retryAt = Date.now() + wait;
        this.timer = setTimeout(() => this.start(), wait);
        this.on.state("waiting", why);
      });
  }

  stop() {
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  async read(signal) {
    const token = sessionStorage.getItem(TOKEN), headers = token ? { authorization: `Bearer ${token}` } : {};
    const answer = await fetch(this.path, { headers, signal, cache: "no-store" }).catch((error) => {
      throw signal.aborted ? error : new Error("The gateway does not answer");
    });
    if (!answer.ok) {
      const words = (await answer.text()).trim().slice(0, 300) || `HTTP ${answer.status}`;
      // These stay as they are, however often one asks.
      throw Object.assign(new Error(words), { stop: [400, 401, 403, 404].includes(answer.status), status: answer.status });
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let unread = "";
    for (;;) {
      const { value, done } = await reader.read().catch(() => { throw new Error("The connection was lost"); });
      if (done) return;
      unread += value;
      this.heardAt = Date.now();
      let end;
      while ((end = unread.indexOf("\n\n")) >= 0) {
        const event = parse(unread.slice(0, end));
        unread = unread.slice(end + 2);
        this.failures = 0;
        if (signal.aborted) return;
        if (event.data) this.on.event(event.name, JSON.parse(event.data));
      }
      if (unread.length > UNREAD_CHARS) throw new Error("An event has no end");
    }
  }
}

// One event of the gateway, which ends its lines with LF alone. A comment has neither name nor data.
function parse(text) {
  const event = { name: "message", data: "" };
  for (const line of text.split("\n")) {
    const [, field, value] = /^(event|data): ?(.*)$/.exec(line) ?? [];
    if (field === "event") event.name = value;
    if (field === "data") event.data += event.data ? `\n${value}` : value;
  }
  return event;
}

