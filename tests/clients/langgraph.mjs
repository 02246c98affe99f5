// LangGraph's client joins a run, after this id or, with -1, from its start: what it yields, as lines of JSON.
//
//     node --input-type=module - URL THREAD RUN LAST_EVENT_ID < langgraph.mjs
import { Client } from '@langchain/langgraph-sdk';

const [apiUrl, thread, run, lastEventId] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));
// What refuses it is told at once, not after tries that take half a minute.
const client = new Client({ apiUrl, apiKey: null, callerOptions: { maxRetries: 0 } });
try {
  for await (const { id, event, data } of client.runs.joinStream(thread, run, { lastEventId })) {
    say({ id: id ?? null, event, data });
  }
  say({ ended: true });
} catch (error) {
  say({ error: error.message });
}
