// An EventSource of npm's: what it hears, as lines of JSON, until it is closed for good.
//
//     node --input-type=module - URL < eventsource.mjs
import { EventSource } from 'eventsource';

const say = (what) => console.log(JSON.stringify(what));
const source = new EventSource(process.argv[2]);
source.onopen = () => say({ open: true });
source.onmessage = ({ data, lastEventId }) => say({ data, lastEventId });
source.addEventListener('ssegate', ({ data, lastEventId }) => say({ control: JSON.parse(data), lastEventId }));
// It has nothing left to do once it is closed, so this ends by itself then.
source.onerror = ({ code }) => say({ closed: source.readyState === EventSource.CLOSED, code: code ?? null });
