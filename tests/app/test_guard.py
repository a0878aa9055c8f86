"""By which names a page is reached."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.access import Access
from app.cli import _parser
from app.guard import guards


@pytest.mark.parametrize(
    "host, names, reached",
    [
        ("127.0.0.1", [], ["127.0.0.1", "localhost"]),
        ("127.0.0.1", ["velora.lab"], ["127.0.0.1", "velora.lab"]),
        ("0.0.0.0", [], ["velora.lab", "evil.example"]),
        ("0.0.0.0", ["velora.lab"], ["velora.lab", "localhost"]),
    ],
)
def test_a_page_answers_to_its_own_names_and_those_of_its_proxy(
    host: str, names: list[str], reached: list[str]
) -> None:
    async def hello(_: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)], middleware=guards(host, Access(), names=names))
    with TestClient(app) as client:
        answered = [
            name
            for name in ("127.0.0.1", "localhost", "velora.lab", "evil.example")
            if client.get("/", headers={"Host": name, "Origin": f"https://{name}"}).status_code == 200
        ]
    assert set(reached) <= set(answered) and ("evil.example" in answered) == ("evil.example" in reached)


@pytest.mark.parametrize("name", ["https://velora.lab", "a b", "*", "velora.lab:443"])
def test_names_that_are_none_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["demo", "--name", name])
    assert "velora.lab" in capsys.readouterr().err


def test_an_origin_that_is_no_address_is_another_site() -> None:
    async def hello(_: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)], middleware=guards("127.0.0.1", Access()))
    with TestClient(app) as client:
        assert client.get("/", headers={"Host": "localhost", "Origin": "http://["}).status_code == 403
