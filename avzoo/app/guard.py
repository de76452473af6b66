"""Who may ask the page anything, for what, and what the browser may load for it."""

from __future__ import annotations

import json
import re
from typing import Any

HOSTS = ("127.0.0.1", "localhost")
# What the page itself asks for. Gradio has more to offer: it fetches addresses, keeps states, runs ffmpeg.
PATHS = re.compile(
    r"/(|config|theme\.css|favicon\.ico|manifest\.json|(assets|static)/.+)"
    r"|/gradio_api/(startup-events|upload|upload_progress|heartbeat/\w+|cancel|reset|file=(?!\w+://).+|queue/(data|join))"
)
POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline';"
    " script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'"  # Gradio's player runs its own ffmpeg from a blob
)


class Guard:
    """Lets in who speaks to this machine by its own name, for what the page needs, and sends the policy along.

    A page elsewhere may send requests here, even under a name of its own that resolves to 127.0.0.1; they carry both.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        known = host.partition(":")[0] in HOSTS and headers.get("origin", f"http://{host}") == f"http://{host}"
        if not known or not PATHS.fullmatch(scope["path"]):
            await PlainTextResponse("this page is for this machine only, and for what it asks itself", 403)(
                scope, receive, send
            )
            return
        if scope["path"].endswith("/join"):
            body = await Request(scope, receive).body()
            if not of_words(body):
                await PlainTextResponse("a question is a list of words", 422)(scope, receive, send)
                return
            receive = _again(body, receive)

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)


def of_words(question: bytes) -> bool:
    """Whether what is asked is text alone: of an object with an address in it Gradio would fetch the address.

    >>> of_words(b'{"data": ["a.mp4", "avsdn-avemix"]}'), of_words(b'{"data": [{"path": "https://example.com"}]}')
    (True, False)
    """
    try:
        data = json.loads(question)["data"]
    except (ValueError, TypeError, KeyError):
        return False
    return isinstance(data, list) and all(isinstance(word, str) for word in data)


def _again(body: bytes, receive: Any) -> Any:
    """The request's body, which was read already, and then what else comes."""
    messages = [{"type": "http.request", "body": body}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    return replay
