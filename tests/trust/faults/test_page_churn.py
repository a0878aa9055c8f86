"""Tabs that come and go, uploads that are cut off, work that is cancelled: what they took is given back."""

from __future__ import annotations

import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.access import Access
from app.page import Page, free_port
from app.school import School
from app.viewers import MOST_VIEWERS
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer, until, viewer_threads
from tests.trust.faults.page_tools import PATIENCE_S, Held, HttpTab, answer, hanging, held, settled
from tests.trust.ledger import Ledger, Row

_GROWTH_MB = 60.0  # allocators keep some
_WORK_S = 200.0  # for two processes to import all they need, beside whatever else the machine does
_STOP_S = 10.0  # of which the page promises a second or so; a busy machine takes more


@pytest.fixture
def page(small_recording: Path, tmp_path: Path) -> Iterator[Page]:
    recording = Path(shutil.copy(small_recording, tmp_path / "square.aedat4"))
    access, school = Access(folders=(tmp_path.resolve(),)), School(tmp_path / "school")
    offered = {"access": access, "school": school, "models": lambda: {"fake": "demo"}}
    with Page(FakeRecognizer, {"square": recording}, **offered) as page:  # type: ignore[arg-type]
        _cycle(page)  # what is made once is there from now on
        yield page


def _cycle(page: Page, tabs: int = 1) -> None:
    """Tabs that open at once, watch a little, and are closed at once."""

    def watch(_: int) -> HttpTab:
        tab = HttpTab(page)
        tab.sees(3)
        return tab

    with ThreadPoolExecutor(tabs) as pool:
        opened = list(pool.map(watch, range(tabs)))
    assert len(page.viewers) == tabs
    for tab in opened:
        tab.close()
    until(lambda: len(page.viewers) == 0, PATIENCE_S)


def _given_back(row: Row, before: Held) -> None:
    settled(before)
    with suppress(AssertionError):  # what was freed is given back to the system while others go on
        until(lambda: held().mb - before.mb < _GROWTH_MB, PATIENCE_S)
    after = held()
    row.worst_mb = max(row.worst_mb, after.mb)
    row.found = f"memory {after.mb - before.mb:+.0f} MB (at most {_GROWTH_MB:+.0f}), all else as before"
    assert not after.beyond(before), after.beyond(before)
    assert after.mb - before.mb < _GROWTH_MB, row.found


def test_tabs_that_come_and_go_leave_nothing(page: Page, ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("page", "tabs opened and closed, one after the other", most_s=30)
    for _ in range(3):
        _cycle(page)
    before = held()
    for k in range(200 if nightly else 20):
        with row.case(f"cycle {k}"):
            _cycle(page)
    _given_back(row, before)
    row.check()


def test_sixteen_tabs_at_once_leave_nothing(page: Page, ledger: Ledger, nightly: bool) -> None:
    row = ledger.row("page", f"{MOST_VIEWERS} tabs at once, and one too many", most_s=60)
    _cycle(page, MOST_VIEWERS)
    before = held()
    for k in range(10 if nightly else 1):
        with row.case(f"round {k}"):
            _cycle(page, MOST_VIEWERS)
    tabs = [HttpTab(page) for _ in range(MOST_VIEWERS)]
    with row.case("one too many"):
        late = HttpTab(page)
        assert not late.token and len(page.viewers) == MOST_VIEWERS
    for tab in (*tabs, late):
        tab.close()
    until(lambda: len(page.viewers) == 0, PATIENCE_S)
    _given_back(row, before)
    row.check()


def _hangs_up(link: socket.socket) -> None:
    link.close()


def _resets(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


def _half_closes(link: socket.socket) -> None:
    link.shutdown(socket.SHUT_WR)
    link.recv(4096)
    link.close()


@pytest.mark.parametrize("cut", [_hangs_up, _resets, _half_closes])
def test_uploads_cut_off_leave_nothing(
    page: Page,
    cut: Callable[[socket.socket], None],
    small_recording: Path,
    ledger: Ledger,
    nightly: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    row = ledger.row("page", f"uploads cut off: the sender{cut.__name__.replace('_', ' ')}", most_s=30)
    part, tab = small_recording.read_bytes() * 4, HttpTab(page)
    tab.sees()

    def upload(k: int) -> None:
        send = part[: len(part) * k // 200]
        cut(hanging(page, _upload(tab, "a.aedat4"), "Content-Length: 900000000", body=send))
        # hundreds at once would have their parts in memory at once, of which the allocator keeps some
        until(lambda: psutil.Process().num_fds() < cold.handles + 10, PATIENCE_S)

    cold = held()
    for k in range(0, 200, 8 if nightly else 100):  # what the allocator keeps of the first ones comes once
        upload(k)
    before = settled(cold)
    for k in range(200 if nightly else 6):
        with row.case(f"upload {k}"):
            upload(k)
    with row.case("the tab goes on"):
        tab.sees(2)
        assert tab.look()["recording"] == "square.aedat4"
    _given_back(row, before)
    tab.close()
    row.check()
    assert "Traceback" not in capfd.readouterr().err


def test_an_upload_ends_with_its_tab(page: Page, ledger: Ledger) -> None:
    row, tab = ledger.row("page", "uploads whose tab is closed meanwhile", most_s=30), HttpTab(page)
    before = held()
    with row.case("closed"):
        lines = _upload(tab, "a.aedat4"), "Content-Length: 900000000", "Connection: close"
        link = hanging(page, *lines, body=b"x" * 3_000_000)
        until(lambda: any(page.uploads.folder.glob("*/*")), PATIENCE_S)
        tab.close()
        until(lambda: len(page.viewers) == 0, PATIENCE_S)
        with suppress(ConnectionError):  # it may have hung up by now
            link.sendall(b"x" * 1000)
        until(lambda: not any(page.uploads.folder.iterdir()), PATIENCE_S)
        reply = answer(link)
        assert not reply or b"not known" in reply  # hanging up, the server may drop its own last words
        link.close()
    _given_back(row, before)
    assert not any(page.uploads.folder.iterdir())
    row.check()


def _upload(tab: HttpTab, name: str) -> str:
    return f"POST /upload/{tab.token}?name={name} HTTP/1.1"


@pytest.mark.parametrize("how", ["stopped", "its tab closed, then the page"])
def test_labelling_and_teaching_that_are_cancelled_leave_nothing(
    small_recording: Path,
    tmp_path: Path,
    how: str,
    ledger: Ledger,
) -> None:
    row = ledger.row("page", f"labelling a folder and teaching, {how}", most_s=_WORK_S)
    folder = tmp_path / "recordings"
    for k in range(12):
        (folder / str(k)).mkdir(parents=True)
        shutil.copy(small_recording, folder / str(k) / "square.aedat4")
    before, school = held(), School(tmp_path / "school")
    page = Page(
        FakeRecognizer,  # type: ignore[arg-type]
        {"square": folder / "0" / "square.aedat4"},
        access=Access(folders=(tmp_path.resolve(),)),
        school=school,
        models=lambda: {"fake": "demo"},
    )
    try:
        tab = HttpTab(page)
        tab.sees()
        with row.case("begin"):
            for k in range(4):
                start_us = 1_000_000 + 300_000 * k
                reply = tab.act("example", start_us=start_us, end_us=start_us + 300_000, label="ab"[k % 2])
                assert reply["done"], reply
            for name, arguments in (("teach", {"name": "mine"}), ("label_folder", {"folder": str(folder)})):
                reply = tab.act(name, **arguments)
                assert reply["done"], reply
            if how == "stopped":  # in the middle; else as soon as it has begun
                until(lambda: tab.look()["batch"]["recordings"] and tab.look()["teaching"]["steps"], _WORK_S)
        with row.case(how):
            if how == "stopped":
                assert tab.act("stop_teaching")["done"] and tab.act("stop_folder")["done"]
                until(lambda: (state := tab.look())["batch"]["over"] and state["teaching"]["over"], _WORK_S)
                assert tab.look()["teaching"]["phase"] == "stopped"
            tab.close()
    finally:
        page.close()
    until(lambda: held().children <= before.children, PATIENCE_S)
    assert not list((tmp_path / "school" / "models").iterdir())
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp")]
    after = held()
    assert not viewer_threads() and after.files <= before.files
    row.found = "no process, no half a model, no temporary file"
    row.check()


def test_the_page_stops_soon_whoever_is_there(
    small_recording: Path, ledger: Ledger, nightly: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    row = ledger.row("page", f"stopped with {MOST_VIEWERS} tabs, an upload and silent connections", most_s=_STOP_S)
    Page(FakeRecognizer, {"square": small_recording}).close()  # type: ignore[arg-type]
    before = held()
    for k in range(10 if nightly else 1):
        port = free_port("127.0.0.1", None)
        page = Page(FakeRecognizer, {"square": small_recording}, port=port)  # type: ignore[arg-type]
        tabs = [HttpTab(page) for _ in range(MOST_VIEWERS)]
        with ThreadPoolExecutor(MOST_VIEWERS) as pool:
            list(pool.map(lambda tab: tab.sees(2), tabs))
        upload = hanging(page, _upload(tabs[0], "a.aedat4"), "Content-Length: 900000000", body=b"x" * 2_000_000)
        silent = [hanging(page, "GET / HTTP/1.1\r\nX-Half: a", body=b"") for _ in range(3)]
        with row.case(f"stop {k}"):
            page.close()
        for tab in tabs:
            tab.close()
        for link in (upload, *silent):
            link.close()
        began = time.monotonic()
        assert free_port("127.0.0.1", port) == port, time.monotonic() - began
    after = settled(before, workers=True)
    row.found = f"memory {after.mb - before.mb:+.0f} MB, all else as before"
    assert not after.beyond(before, workers=True), after.beyond(before, workers=True)
    row.check()
    assert "Traceback" not in capfd.readouterr().err


def test_connections_that_come_while_the_page_stops_are_let_go(
    small_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Page(FakeRecognizer, {"square": small_recording}).close()  # type: ignore[arg-type]
    before = held()
    page = Page(FakeRecognizer, {"square": small_recording})  # type: ignore[arg-type]
    tab = HttpTab(page)
    protocol = type(next(iter(page._demo.server.server_state.connections)))
    monkeypatch.setattr(protocol, "shutdown", lambda _: None)  # nobody tells them
    page.close()
    tab.close()
    after = settled(before, workers=True)
    assert not after.beyond(before, workers=True), after.beyond(before, workers=True)
