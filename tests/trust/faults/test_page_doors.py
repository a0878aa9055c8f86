"""Every route of the running server: who is let in, from where, and what its answers tell a browser."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access import Access, read_users
from app.actions import OPERATORS_ONLY, Actions
from app.page import Page
from app.tries import MOST, MOST_FOR_NAME
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer
from tests.trust.faults.page_tools import HttpTab, attempt, hanging, held
from tests.trust.ledger import Ledger

USERS = read_users("anna:correct horse:operator\nben:battery staple")
ANNA, BEN = ("anna", "correct horse"), ("ben", "battery staple")
#: What anybody may ask: Gradio asks this of its own server when it starts, and learns true or false.
OPEN = {"/gradio_api/startup-events"}
#: What somebody who is let in gets an answer from; every other route is none.
USED = {
    *("/", "/config", "/config/", "/theme.css", "/favicon.ico", "/assets/x", "/static/x", "/metrics"),
    *("/frames/x", "/act/x/x", "/upload/x", "/snapshot/x", "/export/x.x", "/labels/x.csv", "/folder/x"),
    *("/gradio_api/info", "/gradio_api/heartbeat/x", "/gradio_api/queue/join", "/gradio_api/queue/data"),
    *("/gradio_api/run/predict", "/gradio_api/call/x", "/gradio_api/call/x/", "/gradio_api/call/x/x"),
    *("/gradio_api/call/v2/x", "/gradio_api/call/v2/x/", "/gradio_api/call/v2/x/x", "/gradio_api/cancel", *OPEN),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "open": {"address": "/etc/passwd"},
    "mark": {"start_us": 1, "end_us": 2, "label": "x"},
    "erase": {"start_us": 1, "end_us": 2},
    "example": {"start_us": 1, "end_us": 2, "label": "x"},
    "forget": {"label": "x"},
    "teach": {"name": "x"},
    "label_folder": {"folder": "/tmp", "out": ""},
    "clip": {"label": "x"},
    "export_folder": {"out": "/tmp", "to": "csv", "video": False},
    "review": {"out": "/tmp", "recording": "x", "start_us": 0},
}


def _page(recording: Path, access: Access) -> Page:
    return Page(FakeRecognizer, {"square": recording}, access=access)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def guarded(small_recording: Path) -> Iterator[Page]:
    with _page(small_recording, Access(users=USERS, folders=(small_recording.parent.resolve(),), uris=True)) as page:
        assert httpx.get(page.url, auth=BEN).status_code == 200  # before wrong passwords come from this address
        yield page


@pytest.fixture(scope="module")
def plain(small_recording: Path) -> Iterator[Page]:
    with _page(small_recording, Access(folders=(small_recording.parent.resolve(),))) as page:
        yield page


def routes_of(page: Page) -> list[tuple[str, str]]:
    """Method and path of all routes of the running app, Gradio's own among them, with x for what is variable."""
    found: set[tuple[str, str]] = set()

    def collect(routes: Any) -> None:
        for route in routes:
            if hasattr(route, "original_router"):  # included
                collect(route.original_router.routes)
                continue
            path = re.sub(r"\{[^}]*\}", "x", route.path)
            found.update((method, path) for method in route.methods)

    collect(page._demo.server_app.routes)  # type: ignore[attr-defined]
    return sorted(found)


def test_every_route_asks_for_name_and_password(guarded: Page, ledger: Ledger) -> None:
    row = ledger.row("attack: no password", "every route of the running server, with none, a wrong one, another kind")
    routes = routes_of(guarded)
    assert len(routes) > 60, "the routes of the server are not found any more"
    wrong = [
        {},
        {"Authorization": "Basic YW5uYTp3cm9uZw=="},
        {"Authorization": "Bearer x"},
        {"Cookie": "access-token=x"},
    ]
    with httpx.Client(base_url=guarded.url, timeout=30) as client:
        for method, path in routes:
            for headers in wrong:
                with attempt(row, f"{method} {path} {headers}"):
                    reply = client.request(method, path, headers=headers)
                    assert path in OPEN or reply.status_code in (401, 429), reply.status_code
                    assert path in OPEN or "square" not in reply.text
    row.found = f"{len(routes)} routes; open to all: {', '.join(OPEN)}, which says true or false"
    row.check()


def test_what_is_not_used_is_not_there(plain: Page, ledger: Ledger) -> None:
    row = ledger.row("attack: Gradio's other routes", "all of the running server that neither page nor programs use")
    with httpx.Client(base_url=plain.url, timeout=30) as client:
        for method, path in routes_of(plain):
            if path in USED:
                continue
            with attempt(row, f"{method} {path}"):
                reply = client.request(method, path)
                assert (reply.status_code, reply.text) in ((404, "there is no such page"), (404, ""))
        for path in (
            "gradio_api/file=/etc/passwd",
            "docs",
            "mcp",
            "gradio_api/mcp/sse",
            "redoc",
            "stream",
            "__nothing",
        ):
            with attempt(row, path):
                assert client.get(path).status_code == 404
    row.found = f"{len(USED)} are used"
    row.check()


def test_other_sites_and_other_names_are_refused(plain: Page, ledger: Ledger) -> None:
    row = ledger.row(
        "attack: other sites", "cross-origin requests, tags of other pages, and DNS rebinding, on every route"
    )
    own = plain.url.rstrip("/")
    hostile = [
        ({"Host": "evil.example"}, 400),
        ({"Host": f"evil.example:{httpx.URL(own).port}"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": own + ".evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
    ]
    with httpx.Client(base_url=own, timeout=30) as client:
        for method, path in routes_of(plain):
            for headers, status in hostile:
                with attempt(row, f"{method} {path} {headers}"):
                    assert client.request(method, path, headers=headers).status_code == status
        for method, headers in (("POST", {"Sec-Fetch-Mode": "navigate"}), ("GET", {"Sec-Fetch-Mode": "websocket"})):
            with attempt(row, f"{method} {headers}"):
                assert (
                    client.request(method, "/", headers={"Sec-Fetch-Site": "cross-site", **headers}).status_code == 403
                )
        with attempt(row, "a link to the page"):
            follows = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
            assert client.get("/", headers=follows).status_code == 200
    row.check()


def test_answers_tell_browsers_to_take_nothing_from_elsewhere(plain: Page, ledger: Ledger) -> None:
    row = ledger.row("attack: frames, foreign scripts", "headers and cookies of every answer")
    with httpx.Client(base_url=plain.url, timeout=30) as client:
        for method, path in routes_of(plain):
            if "heartbeat" in path or path.endswith("x/x"):
                continue  # which go on
            with attempt(row, f"{method} {path}"):
                headers = client.request(method, path).headers
                policy = headers["content-security-policy"]
                assert "frame-ancestors 'none'" in policy and "connect-src 'self'" in policy
                assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
                assert "set-cookie" not in headers and "access-control-allow-origin" not in headers
    row.check()


def test_guests_only_watch(guarded: Page, small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: guests who operate", "all that is for operators, by the page's routes and by programs'")
    with _page(small_recording, Access(open_to_others=True)) as unguarded:
        for page, auth in ((guarded, BEN), (unguarded, None)):
            tab = HttpTab(page, auth)
            assert tab.token and Actions.names().keys() >= OPERATORS_ONLY
            for name in sorted(OPERATORS_ONLY):
                given = ARGUMENTS.get(name, {})
                with attempt(row, f"act {name}"):
                    assert "for operators" in tab.act(name, **given)["message"]
                with attempt(row, f"call {name}"):
                    asked = {"data": [tab.token, *given.values()]}
                    event = tab.http.post(f"gradio_api/call/{name}", json=asked).json()["event_id"]
                    said = tab.http.get(f"gradio_api/call/{name}/{event}").text
                    assert "event: error" in said and "for operators" in said
            with attempt(row, "folder"):
                told = tab.http.get(f"folder/{tab.token}", params={"out": str(small_recording.parent)}).json()
                assert "for operators" in told["message"] and "folders" not in told
            with attempt(row, "stride"):
                assert tab.act("stride", samples=100)["done"]
                assert "1 to 100 samples" in tab.act("stride", samples=101)["message"]
            with attempt(row, "watch"):
                tab.sees()
            tab.close()
    row.check()


def test_guessing_passwords_is_slowed(small_recording: Path, ledger: Ledger, capfd: pytest.CaptureFixture[str]) -> None:
    row = ledger.row("attack: guessed passwords", "50 in a row, the right one among the last")
    with _page(small_recording, Access(users=USERS)) as page:
        assert httpx.get(page.url, auth=BEN).status_code == 200  # signed in before it begins
        guesses = [("anna", f"guess {k}") for k in range(50)]
        with attempt(row, "guesses"):
            told = [httpx.get(f"{page.url}metrics", auth=guess).status_code for guess in guesses]
            assert told == [401] * MOST + [429] * (len(guesses) - MOST)
        with attempt(row, "the right one"):
            reply = httpx.get(page.url, auth=ANNA)
            assert reply.status_code == 429 and int(reply.headers["retry-after"]) == 60
        with attempt(row, "who was there before"):
            assert httpx.get(page.url, auth=BEN).status_code == 200
    row.found = f"{MOST} a minute from an address, told on the terminal"
    assert f"{MOST} wrong passwords from 127.0.0.1" in capfd.readouterr().err
    row.check()


def test_guesses_from_many_addresses_are_slowed(small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: guessed passwords", f"{2 * MOST_FOR_NAME} with another X-Forwarded-For each")
    with _page(small_recording, Access(users=USERS)) as page, attempt(row, "guesses"):

        def status(k: int, password: str) -> int:
            headers = {"X-Forwarded-For": f"10.0.0.{k}"}
            return httpx.get(f"{page.url}metrics", auth=("anna", password), headers=headers).status_code

        told = [status(k, f"guess {k}") for k in range(2 * MOST_FOR_NAME)]
        assert told == [401] * MOST_FOR_NAME + [429] * MOST_FOR_NAME and status(200, ANNA[1]) == 429
    row.found = f"{MOST_FOR_NAME} a minute for a name"
    row.check()


def test_what_gradio_would_fetch_is_refused(plain: Page, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ledger.row("attack: URLs for Gradio to fetch", "as arguments of every control, by every door of programs")
    asked, resolve = [], socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    file = {"path": "http://fetched.example/x", "url": "http://fetched.example/x", "meta": {"_type": "gradio.FileData"}}
    with httpx.Client(base_url=plain.url, timeout=30) as client:
        for number in range(len(plain._demo.fns)):
            for data in ([file], [[file]], ["x", file]):
                body = {"data": data, "fn_index": number, "session_hash": "s"}
                with attempt(row, f"run {number}"):
                    client.post("gradio_api/run/predict", json=body)
                with attempt(row, f"join {number}"):
                    client.post("gradio_api/queue/join", json=body)
        for name in Actions.names():
            with attempt(row, f"call {name}"):
                event = client.post(f"gradio_api/call/{name}", json={"data": [file]}).json()["event_id"]
                assert "event: error" in client.get(f"gradio_api/call/{name}/{event}").text
    with attempt(row, "nobody was called"):
        assert asked and not any("fetched" in str(host) or "dns" in str(host) for host in asked), set(asked)
    row.check()


def test_sessions_that_strangers_make_up_are_forgotten(plain: Page, ledger: Ledger) -> None:
    row = ledger.row("attack: made-up sessions", "500 of 15 kB each, where Gradio keeps what each sent")
    tab, before = HttpTab(plain), held().mb
    with attempt(row, "requests"):
        for k in range(500):
            body = {"data": ["x" * 15_000], "fn_index": 17, "session_hash": f"s{k}"}
            assert "not known" in tab.http.post("gradio_api/run/predict", json=body).text
        kept = len(plain._demo.state_holder.session_data)  # type: ignore[attr-defined]
        row.found = f"{kept} are kept, {held().mb - before:+.0f} MB"
        assert kept <= 64
    with attempt(row, "the tab goes on"):
        tab.sees(2)
        assert tab.http.post("gradio_api/call/state", json={"data": [tab.token]}).status_code == 200
    tab.close()
    row.check()


def test_guests_learn_nothing_of_what_others_watch(small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: guests who look around", "figures of other tabs")
    with _page(small_recording, Access(users=USERS)) as page:
        tab = HttpTab(page, ANNA)
        for auth, named in ((ANNA, True), (BEN, False)):
            with attempt(row, auth[0]):
                told = httpx.get(f"{page.url}metrics", auth=auth).text
                assert "velora_viewers 1" in told and ("square" in told) == named
        tab.close()
    row.check()


def test_tokens_are_not_guessed(plain: Page, ledger: Ledger) -> None:
    row = ledger.row("attack: guessed tabs", "tokens that are none, on every route that takes one")
    tab = HttpTab(plain)
    paths = ("frames/{}", "snapshot/{}", "export/{}.csv", "export/{}.jsonl", "labels/{}.csv")
    for token in ("", "x", "%00", "%2e%2e", tab.token[:-1], tab.token + "x", tab.token.swapcase(), "0" * 5000):
        for path in paths:
            with attempt(row, path.format(token[:20])):
                assert httpx.get(plain.url + path.format(token)).status_code == 404
        for path in ("act/{}/play", "upload/{}?name=x"):
            with attempt(row, path.format(token[:20])):
                assert httpx.post(plain.url + path.format(token), content=b"{}").status_code in (404, 405)
        with attempt(row, f"folder/{token[:20]}"):
            reply = httpx.get(f"{plain.url}folder/{token}")
            assert reply.status_code == 404 or "not known" in reply.json()["message"]
    tab.close()
    row.check()


def test_requests_of_any_size_and_shape_are_answered_in_little_memory(plain: Page, ledger: Ledger) -> None:
    row = ledger.row(
        "attack: bodies", "too large, too deep, of the wrong kind, on every route that takes one", most_s=10
    )
    bodies = {
        "5 MB": b'{"data": ["' + b"x" * 5_000_000 + b'"]}',
        "deep": b"[" * 100_000,
        "no JSON": b"\xff\xfe\x00",
        "null": b"null",
        "a list": b"[1, 2]",
        "data of a wrong kind": b'{"data": {"a": 1}, "fn_index": 0, "session_hash": 7}',
        "no such function": b'{"data": [], "fn_index": 4711, "session_hash": "x"}',
        "infinity": b'{"data": [1e999, NaN]}',
    }
    tab = HttpTab(plain)
    paths = [path for method, path in routes_of(plain) if method == "POST" and path in USED]
    for path in (*paths, f"/act/{tab.token}/seek", "/gradio_api/call/seek"):
        for name, body in bodies.items():
            with attempt(row, f"{path} {name}"):
                reply = httpx.post(plain.url.rstrip("/") + path, content=body, timeout=30)
                assert "Traceback" not in reply.text and len(reply.content) < len(body) + 1_000
                assert reply.status_code < 500 or path.startswith("/gradio_api")
                assert name != "5 MB" or path.startswith(("/act", "/upload")) or reply.status_code == 413
    with attempt(row, "the tab goes on"):
        tab.sees(2)
    tab.close()
    row.check()


def test_half_requests_do_not_hold_up_others(plain: Page, ledger: Ledger, nightly: bool) -> None:
    row = ledger.row(
        "attack: half-open connections", "hundreds of connections that never finish their request", most_s=20
    )
    links = [hanging(plain, "GET / HTTP/1.1\r\nX-Half: a") for _ in range(400 if nightly else 100)]
    for link in links[::2]:
        link.sendall(b"Content-Length: -5\r\n\r\n" if link is links[0] else b"X-More: b\r\n")
    with row.case("a tab beside them"):
        began = time.monotonic()
        tab = HttpTab(plain)
        tab.sees(3)
        tab.close()
        row.found = f"a tab shows its third picture after {time.monotonic() - began:.1f} s"
    for link in links:
        link.close()
    row.check()
