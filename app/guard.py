"""Who may talk to the page: requests under its own name, and not from other sites in the same browser.

Without this, a web page anywhere could reach a page bound to this machine only: by a simple cross-site POST, or by
letting its own name resolve to this machine's address (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import Access
from app.gates import Told, UsedOnly
from app.tries import WAIT_S, Tries

_OWN_START = "/gradio_api/startup-events"  # where Gradio asks its own server to begin
_SHARED = ["*.gradio.live"]  # names of Gradio's share links
_EVERYWHERE = ("0.0.0.0", "::", "")


def guards(host: str, access: Access, *, names: Sequence[str] = (), shared: bool = False) -> list[Middleware]:
    """Middleware for a server bound to `host`, which a proxy also asks for by `names`.

    Bound to every address without any of those, its names cannot be known and any will do.
    """
    known = ["127.0.0.1", "localhost", "[::1]", *names]
    if host.strip("[]") not in _EVERYWHERE:
        known.append(host)
    elif not names:
        known = ["*"]
    known += _SHARED if shared else []
    return [
        Middleware(Told),
        Middleware(TrustedHostMiddleware, allowed_hosts=known),
        Middleware(OwnSiteOnly),
        Middleware(KnownOnly, access=access),
        Middleware(UsedOnly),
    ]


class OwnSiteOnly:
    """Refuses what a browser sends on behalf of another site, other than following a link to the page.

    Browsers tell the site that asks in Sec-Fetch-Site, over plain HTTP only to this machine, and in Origin wherever
    they let it read the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_of_another_site(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("requests from other sites are refused", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_of_another_site(method: str, headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and _place_of(origin) != headers.get("host"):
        return True
    follows = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return not follows and headers.get("sec-fetch-site") in ("cross-site", "same-site")


def _place_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no browser sends what is no address
        return None


class KnownOnly:
    """Asks for name and password, on every route, where the page has users; by HTTP Basic, which programs speak too."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access, self._tries = app, access, Tries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        free = scope["type"] == "lifespan" or scope.get("path") == _OWN_START or not self.access.users
        refusal = None if free else self._refusal(Headers(scope=scope), *(scope.get("client") or ("",)))
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refusal(self, headers: Headers, address: str, *_: object) -> Response | None:
        user, claimed = self.access.user(headers), self.access.claimed(headers)
        if "authorization" in headers and self._tries.waits(address, claimed):
            wait = {"Retry-After": f"{WAIT_S:.0f}"}
            return PlainTextResponse("too many wrong passwords: wait a minute", 429, wait)
        if user is not None:
            self._tries.right(address, user.name)
            return None
        if "authorization" in headers:
            self._tries.wrong(address, claimed)
        asked = {"WWW-Authenticate": 'Basic realm="velora", charset="UTF-8"'}
        return PlainTextResponse("sign in with a name and password", 401, asked)
