"""OpenAI's client reads a stream of chat completions: what it makes of it, as lines of JSON.

    PYTHONPATH=... python3 openai_client.py URL PATH
"""

import json
import sys

from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk


def say(**what):
    print(json.dumps(what), flush=True)


class Decoder:
    """Its own decoder, overheard."""

    def __init__(self, decoder):
        self.decoder = decoder

    def iter_bytes(self, chunks):
        for event in self.decoder.iter_bytes(chunks):
            say(decoded=event.data)
            yield event


class Overheard(OpenAI):
    def _make_sse_decoder(self):
        return Decoder(super()._make_sse_decoder())


base_url, path = sys.argv[1:]
client = Overheard(base_url=base_url, api_key="none", max_retries=0)
try:
    chunks = client.get(path, cast_to=ChatCompletionChunk, stream=True, stream_cls=Stream[ChatCompletionChunk])
    for chunk in chunks:
        say(content=chunk.choices[0].delta.content)
    say(ended=True)
except Exception as error:
    say(error=f"{type(error).__name__}: {error}")
