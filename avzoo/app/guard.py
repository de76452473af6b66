"""Who may ask the page anything, and what the browser may load for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

HOSTS = ("127.0.0.1", "localhost")
POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline';"
    " script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'"  # Gradio's player runs its own ffmpeg from a blob
)


class Guard:
    """Lets in who speaks to this machine by its own name, fetches nothing for them, and sends the policy along.

    A page elsewhere may send requests here, even under a name of its own that resolves to 127.0.0.1; they carry both.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").partition(":")[0], headers.get("origin")
        if host not in HOSTS or (origin and urlsplit(origin).hostname not in HOSTS) or "=http" in scope["path"]:
            await PlainTextResponse("this page is for this machine only", 403)(scope, receive, send)
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)
