"""Words of strangers on the page and in what it exports: shown as text in a real browser, and never run."""

from __future__ import annotations

import contextlib
import csv
import io
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.access import Access
from app.page import Page
from app.school import School
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer, until
from tests.app.label_outputs import at, write_outputs
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser  # noqa: F401 (a fixture)
from tests.trust.faults.page_tools import HttpTab, attempt
from tests.trust.ledger import Ledger, Row
from velora import VELoRAConfig

#: Ways to have a browser run something, each of which would set `window.hit`.
HITS = (
    "<img src=x onerror=window.hit=1>",
    "<script>window.hit=1</script>",
    '"><svg onload=window.hit=1>',
    "'-(window.hit=1)-'",
    "</textarea><iframe srcdoc='<script>parent.hit=1</script>'>",
    "{{constructor.constructor('window.hit=1')()}}${window.hit=1}",
    "<a href=javascript:window.hit=1>x</a>",
)
WORD = HITS[0]
FORMULAS = ('=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "=cmd|' /C calc'!A0")


class Speaker(FakeRecognizer):
    """Its labels are a stranger's."""

    name = HITS[1]
    config = VELoRAConfig(labels=HITS, backbone="demo", sample_period_us=133_333)

    def open(self, *, stride: int = 1, hop: int = 1) -> Any:
        session = super().open(stride=stride, hop=hop)
        push = session.push

        def said(sample: Any) -> Any:
            found = push(sample)
            if found is not None:
                label = self.config.labels[sample.index // 3 % len(self.config.labels)]
                found.topk, found.label = tuple((word, 0.1) for word in self.config.labels[:5]), label
            return found

        session.push = said  # type: ignore[method-assign]
        return session


class Calculator(Speaker):
    """Its labels are formulas."""

    config = VELoRAConfig(labels=tuple(map(str.strip, FORMULAS)), backbone="demo", sample_period_us=133_333)


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A server that nobody may call."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        yield listener


def _ran(tab: Tab) -> bool:
    made = "document.querySelector('#view script, #view iframe, #view [onerror]') !== null"
    return bool(tab.page.evaluate(f"window.hit !== undefined || {made}"))


def _tried(row: Row, tab: Tab, name: str, shown: str) -> None:
    """Once the page shows a text, nothing of it has been run."""
    with attempt(row, name):
        tab.wait(shown)
        tab.page.wait_for_timeout(50)
        assert not _ran(tab), "it was run"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_words_are_shown_and_never_run(
    browser: Any,  # noqa: F811
    small_recording: Path,
    tmp_path: Path,
    elsewhere: socket.socket,
    ledger: Ledger,
    nightly: bool,
) -> None:
    row = ledger.row("attack: HTML and script", "in names and labels that a real browser shows")
    folder = tmp_path.resolve() / "recordings"
    folder.mkdir()
    hits = HITS if nightly else HITS[:3]
    names = [hit.replace("/", "\\") for hit in hits]
    for name in names:
        shutil.copy(small_recording, folder / f"{name}.aedat4")
    spans = {f"{WORD}.aedat4": [(at(0), at(5), WORD, 0.5)], f"{HITS[1][:8]}.aedat4": None}
    out = write_outputs(folder / "set", spans)
    offered: dict[str, Path | str] = {name: folder / f"{name}.aedat4" for name in names}
    options: dict[str, Any] = {"access": Access(folders=(folder,)), "school": School(tmp_path / "school")}
    options["models"] = lambda: {**{hit: "demo" for hit in HITS}, "fake": "demo"}
    with Page(Speaker, offered, **options) as page:  # type: ignore[arg-type]
        tab = Tab(browser, page.url)
        for hit in HITS[:5]:
            _tried(row, tab, f"label {hit}", f"{SHOWN.format('bars')}.includes({hit!r})")
        _tried(
            row, tab, "models", f"[...document.querySelectorAll('#model option')].some(o => o.value === {HITS[2]!r})"
        )
        for name in names:
            tab.page.select_option("#choice", name)
            _tried(row, tab, f"recording {name}", f"{SHOWN.format('status')}.includes({name!r})")
        tab.page.locator("#hand summary").click()
        for k, hit in enumerate(hits):
            ((token, viewer),) = page.viewers.counted().items()
            page._actions.act("mark", {}, token, start_us=1_000_000 + k * 1000, end_us=1_000_900 + k * 1000, label=hit)
            _tried(row, tab, f"label by hand {hit}", f"{SHOWN.format('spans')}.includes({hit!r})")
        for hit in hits:
            viewer.say(hit)
            _tried(row, tab, f"message {hit}", f"{SHOWN.format('message')}.includes({hit!r})")
        for address in (*hits, f"tcp://{WORD}", f"/{WORD}"):
            tab.page.fill("#address", address)
            tab.page.click("#open")
            _tried(row, tab, f"address {address}", f"{SHOWN.format('message')}.length > 5")
        tab.page.locator("#tuning summary").click()
        tab.page.fill("#words", ",".join(HITS[:2]))
        tab.page.click("#ask-words")
        _tried(row, tab, "words", f"{SHOWN.format('message')} !== ''")
        bad = tmp_path / f"{names[0]}.aedat4"
        bad.write_bytes(b"\xff" * 100)
        tab.upload(bad)
        _tried(row, tab, "name of an upload", f"{SHOWN.format('message')}.includes('not a recording')")
        tab.page.click("[data-view=folder]")
        tab.page.fill("#batch-out", str(out))
        tab.page.click("#show-folder")
        _tried(row, tab, "a labelled folder", f"{SHOWN.format('rows')}.includes('onerror')")
        _tried(row, tab, "doubtful spans", f"{SHOWN.format('doubts')}.includes('onerror')")
        _tried(row, tab, "failures", f"{SHOWN.format('failures')}.includes('script')")
        with attempt(row, "what would be run could take nothing away"):
            port = elsewhere.getsockname()[1]
            send = "url => Promise.race([fetch(url, {mode: 'no-cors'}).then(() => 'sent', () => 'refused')])"
            assert tab.page.evaluate(send, f"http://127.0.0.1:{port}/?stolen") == "refused"
            tab.page.evaluate("url => { new Image().src = url; }", f"http://127.0.0.1:{port}/?stolen")
            with pytest.raises(TimeoutError):
                elsewhere.accept()
        with attempt(row, "in a frame of another page"):
            framed = browser.new_page()
            framed.set_content(f"<iframe id=f src='{page.url}'></iframe>")
            framed.wait_for_load_state("networkidle")
            (inner,) = framed.frames[1:]
            assert "velora" not in inner.content().lower() and not inner.query_selector("#view")
            framed.close()
        row.found = "nothing was run, nobody else was called"
        tab.page.close()
    row.check()


def test_no_cell_of_an_export_is_a_formula(small_recording: Path, tmp_path: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: CSV formulas", "labels, names of recordings and models, in each CSV that the page gives")
    recording = tmp_path / "=1+1.aedat4"
    shutil.copy(small_recording, recording)
    options: dict[str, Any] = {"access": Access(folders=(tmp_path.resolve(),)), "school": School(tmp_path / "school")}
    with Page(Calculator, {"x": recording}, **options) as page:  # type: ignore[arg-type]
        tab = HttpTab(page)
        until(lambda: len(tab.http.get(f"export/{tab.token}.csv").text.splitlines()) > 20, 60)
        marked = [word for word in FORMULAS if word.isprintable()]
        for k, word in enumerate(marked):
            start_us = 1_000_000 + 2000 * k
            assert tab.act("mark", start_us=start_us, end_us=start_us + 1000, label=word)["done"]
        for path in (f"export/{tab.token}.csv", f"labels/{tab.token}.csv"):
            reply = tab.http.get(path)
            cells = [cell for line in csv.reader(io.StringIO(reply.text)) for cell in line]
            with attempt(row, path):
                wrong = [cell for cell in cells if cell[:1] in "=+-@\t\r" and cell and not _is_number(cell)]
                assert not wrong and any(cell.startswith("'=") for cell in cells), wrong
                assert "attachment" in reply.headers["content-disposition"]
        for name in ("csv", "jsonl"):
            with attempt(row, f"file name of {name}"):
                given = tab.http.get(f"export/{tab.token}.{name}").headers["content-disposition"]
                assert given == f'attachment; filename="1-1.aedat4.{name}"', given
        tab.close()
    row.check()


def _is_number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return "inf" not in cell and "nan" not in cell
    return False
