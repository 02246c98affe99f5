"""httpx-sse reads a stream, with the id after which it goes on if there is one: what it hears, as lines of JSON.

    PYTHONPATH=... python3 httpx_sse_client.py URL [LAST_EVENT_ID]
"""

import json
import sys

import httpx
from httpx_sse import SSEError, connect_sse


def say(**what):
    print(json.dumps(what), flush=True)


url, *after = sys.argv[1:]
headers = {"Last-Event-ID": after[0]} if after else {}
with httpx.Client(timeout=None) as client, connect_sse(client, "GET", url, headers=headers) as source:
    say(status=source.response.status_code)
    try:
        for event in source.iter_sse():
            say(event=event.event, data=event.data, id=event.id)
        say(ended=True)
    except (SSEError, httpx.TransportError) as error:
        say(error=f"{type(error).__name__}: {error}")
