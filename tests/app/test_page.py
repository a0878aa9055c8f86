"""The page in a real browser: what a person sees and does there."""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from app.model import load_model
from app.page import Page, free_port
from recordings import bundled
from tests.app.fakes import LABELS, FakeRecognizer, until, viewer_threads
from tests.conftest import SMALL_CLIP, SmallClip
from velora import load_recognizer

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOWN = "document.getElementById('{}')?.textContent"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")


class Tab:
    """A tab of the page that remembers what went wrong in it."""

    def __init__(self, browser, url: str, size: tuple[int, int] = (1440, 900), scheme: str = "light") -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.page, self.errors = browser.new_page(viewport=viewport, color_scheme=scheme), []
        self.page.on("console", lambda line: line.type == "error" and self.errors.append(line.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda asked: self._allow(asked.url, url))
        self.page.goto(url)
        self.page.wait_for_function("document.getElementById('strip')?.naturalWidth > 0")
        self.page.evaluate("window.loads = 0; document.getElementById('strip').addEventListener('load', () => loads++)")

    def _allow(self, asked: str, url: str) -> None:
        if not asked.startswith((url, "blob:", "data:")):
            self.errors.append(f"asked for {asked}")

    @property
    def loads(self) -> int:
        return self.page.evaluate("window.loads")

    def text(self, name: str) -> str:
        return self.page.evaluate(SHOWN.format(name)) or ""

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=10_000)

    def changes(self, name: str) -> None:
        """Wait until an element's text is another than now."""
        self.page.wait_for_function(f"old => {SHOWN.format(name)} !== old", arg=self.text(name), timeout=15_000)

    def moves(self) -> None:
        """Wait for new pictures."""
        self.page.wait_for_function("old => window.loads > old + 3", arg=self.loads, timeout=10_000)

    def stands(self) -> None:
        """Wait until pictures have stopped to come."""
        before, end = -1, time.monotonic() + 15
        while (now := self.loads) != before:
            assert time.monotonic() < end, "pictures go on"
            before = now
            self.page.wait_for_timeout(400)

    def download(self, does: Callable[[], object], to: Path) -> str:
        """Save what something brings; the name that it came with."""
        with self.page.expect_download() as saved:
            does()
        saved.value.save_as(to)
        return str(saved.value.suggested_filename)

    def upload(self, file: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.click("#upload")
        chooser.value.set_files(file)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(small_recording: Path) -> Iterator[Page]:
    recordings = bundled()
    assert recordings, "the bundled recording is missing"
    with Page(lambda: load_recognizer("demo"), {**recordings, "square": small_recording}) as page:
        yield page


@pytest.fixture
def open_tab(browser, page: Page) -> Iterator[Callable[[], Tab]]:
    """Opens tabs; after the test they are closed, must have met no error, and leave no viewer behind."""
    tabs: list[Tab] = []

    def open_tab() -> Tab:
        tabs.append(Tab(browser, page.url))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.close()
    assert [error for tab in tabs for error in tab.errors] == []
    until(lambda: len(page.viewers) == 0 and not viewer_threads())


@pytest.fixture
def tab(open_tab: Callable[[], Tab]) -> Tab:
    return open_tab()


@pytest.mark.timing
def test_pictures_and_labels_come(tab: Tab, capsys: pytest.CaptureFixture[str]) -> None:
    start, before = time.monotonic(), tab.loads
    tab.page.wait_for_timeout(3000)
    rate = (tab.loads - before) / (time.monotonic() - start)
    with capsys.disabled():
        print(f"\n[page: {rate:.1f} pictures a second in Chromium]")
    assert rate >= 10
    tab.wait("document.querySelectorAll('#bars .name')[4].textContent !== ''")
    tab.changes("bars")
    assert tab.text("label") and re.search(r"\d+ fps", tab.text("status"))


def test_a_trained_model_is_not_called_random(tab: Tab) -> None:
    assert tab.text("random") == ""


def test_pause_and_play(tab: Tab) -> None:
    tab.page.click("#play")
    tab.wait(f"{SHOWN.format('play')} === 'Play'")
    tab.stands()
    assert "paused" in tab.text("status")
    tab.page.click("#play")
    tab.wait(f"{SHOWN.format('play')} === 'Pause'")
    tab.moves()


def test_restart_plays_from_the_start(tab: Tab) -> None:
    position = "parseFloat(document.querySelectorAll('#status dd')[1].textContent)"
    tab.wait(f"{position} > 1.2")
    tab.page.click("#play")
    tab.stands()
    tab.page.click("#restart")
    tab.wait(f"{position} < 1.2")
    tab.wait(f"{SHOWN.format('play')} === 'Pause'")
    tab.moves()


def test_keys(tab: Tab) -> None:
    tab.page.keyboard.press("Space")
    tab.wait(f"{SHOWN.format('play')} === 'Play'")
    tab.page.click("#restart")
    tab.wait(f"{SHOWN.format('play')} === 'Pause'")
    tab.page.keyboard.press("Space")  # for the page, not for the button just clicked
    tab.wait(f"{SHOWN.format('play')} === 'Play'")
    tab.page.keyboard.press("r")
    tab.wait(f"{SHOWN.format('play')} === 'Pause'")


def test_two_tabs_are_apart(open_tab: Callable[[], Tab], page: Page) -> None:
    first, second = open_tab(), open_tab()
    assert len(page.viewers) == 2
    first.page.click("#play")
    first.stands()
    second.moves()


def test_the_layout_stands_still(tab: Tab) -> None:
    boxes = "['strip', 'result', 'bars', 'status'].map(id => document.getElementById(id).getBoundingClientRect().y)"
    before = tab.page.evaluate(boxes)
    tab.wait("document.querySelectorAll('#bars .name')[4].textContent !== ''")
    tab.page.click("#play")
    tab.stands()
    assert tab.page.evaluate(boxes) == before


def test_another_recording(tab: Tab) -> None:
    tab.page.select_option("#choice", "square")
    tab.wait(f"{SHOWN.format('status')}.includes('square.aedat4')")
    tab.moves()


def test_a_bad_upload_is_one_line_and_the_page_goes_on(tab: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.aedat4"
    bad.write_bytes(b"\x00\xff" * 500)
    tab.upload(bad)
    tab.wait(f"{SHOWN.format('message')}.startsWith('bad.aedat4')")
    assert "\n" not in tab.text("message")
    tab.moves()
    assert "cards.aedat4" in tab.text("status")


def test_a_good_upload_plays(tab: Tab, small_recording: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.aedat4"
    shutil.copy(small_recording, mine)
    tab.upload(mine)
    tab.wait(f"{SHOWN.format('status')}.includes('mine.aedat4')")
    tab.moves()
    assert mine.exists() and not tab.text("message")


@pytest.mark.timing
def test_labels_are_text_and_a_tab_outlives_the_program(browser, small_recording: Path) -> None:
    port = free_port("127.0.0.1", None)
    recordings = {"square": small_recording}
    with Page(FakeRecognizer, recordings, port=port) as first:
        tab = Tab(browser, first.url)
        tab.wait(f"{SHOWN.format('bars')}.includes({LABELS[0]!r})")
        assert tab.page.locator("#bars b").count() == 0
        assert tab.text("random") == "Random weights (head): the labels mean nothing yet."
        assert tab.errors == []
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 4 and not viewer_threads()
    tab.wait(f"{SHOWN.format('message')}.includes('No answer')")
    with Page(FakeRecognizer, recordings, port=port):
        tab.wait("document.getElementById('strip')?.naturalWidth > 0 && window.loads === undefined")
        tab.page.close()


def test_the_users_own_words_are_on_the_page(browser, small_recording: Path, small_clip: SmallClip) -> None:
    asked = ["--labels", "a moving square,<b>waving</b>", "--model", SMALL_CLIP, "--weights", str(small_clip.file)]
    arguments = demo_arguments([*asked, "--device", "cpu"])
    with Page(lambda: load_model(arguments), {"square": small_recording}) as page:
        tab = Tab(browser, page.url)
        tab.wait(f"{SHOWN.format('bars')}.includes('a moving square')")
        tab.changes("bars")
        assert "<b>waving</b>" in tab.text("bars") and tab.text("random") == ""
        assert tab.errors == []
        tab.page.close()


def demo_arguments(options: list[str]) -> argparse.Namespace:
    from app.cli import _parser

    return _parser().parse_args(["demo", *options])


def test_starts_behind_a_proxy(monkeypatch: pytest.MonkeyPatch, small_recording: Path) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.org")
    Page(FakeRecognizer, {"square": small_recording}).close()


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 is in use"):
            Page(FakeRecognizer, {"square": Path("unread.aedat4")}, port=port)


def test_a_port_that_is_taken_while_the_page_starts_is_left_for_the_next_one(
    small_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken, free = busy.getsockname()[1], free_port("127.0.0.1", None)
        told = iter([taken, taken, free])  # of the first two it seemed to be free
        monkeypatch.setattr("app.page.free_port", lambda *_: next(told))
        with Page(FakeRecognizer, {"square": small_recording}) as page:
            assert httpx.get(page.url).status_code == 200 and str(free) in page.url


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError("Cannot find empty port"), "other programs take"), (OSError(24, "Too many open files"), "Too many open")],
)
def test_a_page_that_cannot_be_served_says_why(error: OSError, told: str, small_recording: Path, monkeypatch) -> None:
    monkeypatch.setattr("app.page._launch", Mock(side_effect=error))
    with pytest.raises(ValueError, match=f"cannot serve on 127.0.0.1, port [0-9]+: {told}"):
        Page(FakeRecognizer, {"square": small_recording})


@pytest.mark.parametrize("host", ["::1", "[::]"])
def test_what_cannot_be_served_on_is_one_line(host: str) -> None:
    with pytest.raises(ValueError, match="a name or an IPv4 address"):
        Page(FakeRecognizer, {"square": Path("unread.aedat4")}, host=host)


def test_a_server_that_fails_once_does_not_stop_the_page(tab: Tab) -> None:
    failed: list[int] = []

    def fail(route) -> None:
        failed.append(1)
        route.fulfill(status=500, body="Internal Server Error") if len(failed) == 1 else route.continue_()

    tab.page.route("**/frames/**", fail)
    tab.wait(f"{SHOWN.format('message')}.includes('error 500')")
    tab.moves()
    tab.errors.clear()  # the browser's own word on the 500


def test_a_page_is_shared_only_with_whom_it_knows() -> None:
    with pytest.raises(ValueError, match="--auth FILE"):
        Page(FakeRecognizer, {"square": Path("unread.aedat4")}, share=True)


def test_no_recording_is_one_line() -> None:
    with pytest.raises(ValueError, match="no recording to play"):
        Page(FakeRecognizer, {})


def test_what_loading_raises_reaches_the_caller() -> None:
    def load() -> FakeRecognizer:
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        Page(load, {"square": Path("unread.aedat4")})


def test_gradio_is_imported_without_writing_stubs() -> None:
    code = """
from app.fast_import import import_gradio
import_gradio()
from gradio import component_meta
print(component_meta.create_or_modify_pyi.__module__)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert done.stdout.strip() == "app.fast_import", done.stderr


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_names_and_other_sites_are_refused(page: Page, headers: dict[str, str], status: int) -> None:
    asked = httpx.post(f"{page.url}gradio_api/call/open_tab", headers=headers, json={"data": []})
    assert asked.status_code == status


def test_other_sites_cannot_read_either(page: Page) -> None:
    for path in ("", "metrics", "gradio_api/info"):
        assert httpx.get(page.url + path, headers={"Origin": "http://evil.example"}).status_code == 403
        assert httpx.get(page.url + path, headers={"Origin": page.url.rstrip("/")}).status_code == 200


def test_files_of_the_machine_are_not_served(page: Page) -> None:
    for path in ("/etc/passwd", "README.md", str(bundled()["cards"]), "../README.md"):
        assert httpx.get(f"{page.url}gradio_api/file={path}").status_code in (403, 404)
    assert httpx.get(f"{page.url}frames/guessed?after=0").status_code == 404
