"""What the page's server answers at all: the routes that the page and programs use, and bodies of bounded size.

Gradio has more routes: they serve files, keep states on disk, fetch from other servers, show an editor. None is needed
here, so nobody reaches them, also not those that a later Gradio adds.
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OWN = r"/(frames|act|upload|snapshot|export|labels|folder)/.+|/metrics"
_PAGE = r"/|/config/?|/theme\.css|/favicon\.ico|/(assets|static)/.+"
_PROGRAMS = r"/gradio_api/(startup-events|info|heartbeat/\w+|run/predict|queue/(join|data)|call/.+|cancel)"
_USED = re.compile(f"{_OWN}|{_PAGE}|{_PROGRAMS}")
_GRADIO = "/gradio_api/"
_UPLOAD = "/upload/"  # which counts for itself
_MOST_BYTES = 20_000  # of any other request
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)  # Gradio's scripts are inline, and make functions of text
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


class UsedOnly:
    """Refuses all other routes, and bodies that are too large. A sender that goes away is no error."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self._bounded = app, RequestBodyLimitMiddleware(app, _MOST_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _USED.fullmatch(scope["path"]):
            await PlainTextResponse("there is no such page", 404)(scope, receive, send)
            return
        free = scope["type"] != "http" or scope["path"].startswith(_UPLOAD)
        try:
            with suppress(ClientDisconnect):
                await (self.app if free else self._bounded)(scope, receive, send)
        except Exception as error:
            if not scope.get("path", "").startswith(_GRADIO):
                raise
            told = f"{scope['path'][:80]!r} was sent what cannot be understood ({type(error).__name__})"
            print(f"velora: {told}", file=sys.stderr)  # it needs no traceback, nor what a stranger has sent
            with suppress(RuntimeError):  # it has begun to answer
                await PlainTextResponse("that cannot be understood", 400)(scope, receive, send)


class Told:
    """Tells browsers to load and to run nothing from elsewhere for the page, and to show it in no other page."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, tell)
