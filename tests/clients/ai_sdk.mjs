// A chat of the AI SDK without a page: what its hook would show, as lines of JSON.
//
//     node --input-type=module - URL send|resume < ai_sdk.mjs
import { AbstractChat, DefaultChatTransport } from 'ai';

const [url, how] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

// The answer is asked for elsewhere; who has asked follows the stream that it is written to.
class Transport extends DefaultChatTransport {
  async sendMessages(options) {
    const stream = await this.reconnectToStream(options);
    if (stream === null) throw new Error('there is no answer');
    return stream;
  }
}

// What the hook of React keeps for its components.
class State {
  status = 'ready';
  error = undefined;
  #messages = [];
  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = messages;
    this.show();
  }
  pushMessage = (message) => (this.messages = [...this.#messages, message]);
  popMessage = () => (this.messages = this.#messages.slice(0, -1));
  replaceMessage = (index, message) => {
    this.messages = this.#messages.map((old, at) => (at === index ? this.snapshot(message) : old));
  };
  snapshot = (value) => structuredClone(value);
  show() {
    const last = this.#messages.at(-1);
    if (last?.role === 'assistant') say({ text: text(last) });
  }
}

const text = (message) => message.parts.map((part) => part.text ?? '').join('');

const chat = new (class extends AbstractChat {})({
  id: 'a',
  state: new State(),
  transport: new Transport({ prepareReconnectToStreamRequest: () => ({ api: url }) }),
});
await (how === 'send' ? chat.sendMessage({ text: 'Why?' }) : chat.resumeStream());
const answers = chat.messages.filter((message) => message.role === 'assistant').map(text);
say({ status: chat.status, error: chat.error?.message.split('\n')[0] ?? null, answers });
process.exit();
