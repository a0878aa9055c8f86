"""What the page's server answers at all."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.gates import Told, UsedOnly


async def read(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with how much was sent."""
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def ask(method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(Told(UsedOnly(read)))

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    "path",
    ["/", "/frames/T?after=1", "/act/T/play", "/upload/T", "/metrics", "/config", "/assets/a.js", "/static/js/a.js"]
    + ["/gradio_api/run/predict", "/gradio_api/queue/join", "/gradio_api/call/open_tab/E", "/gradio_api/heartbeat/x"],
)
def test_what_the_page_and_programs_use_is_answered(path: str) -> None:
    assert ask("GET", path).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x", "/gradio_api/deep_link"]
    + ["/monitoring", "/login", "/gradio_api/vibe-edit", "/mcp", "/frames/", "/metrics/x", "/a\nb"],
)
def test_nothing_else_is(path: str) -> None:
    assert ask("POST", path.replace("\n", "%0a")).status_code == 404


def test_bodies_are_bounded_but_for_uploads_which_count_for_themselves() -> None:
    large = b"x" * 20_001
    assert ask("POST", "/gradio_api/queue/join", content=large).status_code == 413
    assert ask("POST", "/gradio_api/queue/join", content=large[1:]).text == "20000"
    assert ask("POST", "/upload/T", content=large).text == "20001"


def test_a_sender_that_goes_away_is_no_error() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    asyncio.run(UsedOnly(gone)({"type": "http", "path": "/upload/T", "headers": []}, None, None))  # type: ignore[arg-type]


def test_what_gradio_cannot_understand_is_one_line_and_own_defects_stay_visible(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("secret\n" * 1000)

    scope: Scope = {"type": "http", "path": "/gradio_api/call/x", "method": "POST", "headers": []}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(UsedOnly(fails)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400 and "secret" not in str(sent)
    assert capsys.readouterr().err == "velora: '/gradio_api/call/x' was sent what cannot be understood (KeyError)\n"
    with pytest.raises(KeyError):
        asyncio.run(UsedOnly(fails)({**scope, "path": "/act/T/play"}, None, send))  # type: ignore[arg-type]


def test_every_answer_tells_browsers_to_take_nothing_from_elsewhere() -> None:
    for path in ("/", "/login"):
        headers = ask("GET", path).headers
        assert "connect-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
