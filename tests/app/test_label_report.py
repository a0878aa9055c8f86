"""`velora report`: one page on what was labelled, that works from a file and asks nobody for anything."""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from app.export.results import read_results
from app.label_file import LabelRow, write_label_rows
from app.label_report.extent import extent_of
from app.label_report.page import seconds_as_text
from app.label_report.thumbnails import Thumbnail
from app.label_report.tracks import amounts_of, doubts_of, labelled_seconds, tracks_of
from app.labelling.notes import Place
from app.labelling.windows import window_writer
from tests.app.conftest import write_square
from tests.app.label_outputs import PERIOD_US, SPANS, START_US, at, run, write_note_of, write_outputs
from tests.app.test_page import ARGUMENTS, CHROMIUM

EVIL = '"><img src=x onerror=alert(1)></style></script><script>alert(2)</script>'
NAMES = ("day 1/walk.aedat4", "day 1/sit.aedat4", f"day 2/{EVIL.replace('/', '∕')}.aedat4", "top.aedat4")


def reported(out: Path, *options: object) -> tuple[str, str]:
    """The page, and what was said."""
    code, stdout, stderr = run("report", out, *options)
    assert (code, stdout) == (0, ""), stderr
    return (out / "report.html").read_text(encoding="utf-8"), stderr


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some that were labelled, one that somebody has corrected, one that failed, labels that strangers chose."""
    folder = tmp_path_factory.mktemp("report")
    made = write_outputs(folder, {name: SPANS for name in NAMES} | {"broken.aedat4": None})
    name = Path(NAMES[2]).name
    rows = [LabelRow(name, at(0), at(6), EVIL, 0.31), LabelRow(name, at(6), at(9), "fall")]
    write_label_rows(Place(made, NAMES[2]).labels, rows)
    return made


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return reported(out)[0]


class Parts(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_comes_from_elsewhere(page: str) -> None:
    parts = Parts(page)
    assert not re.search(r"url\(|@import|https?://", page)
    sources = [attributes["src"] for _, attributes in parts.tags if "src" in attributes]
    assert len(sources) == 10 and all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert {attributes["href"][:2] for _, attributes in parts.tags if attributes.get("href")} == {"#r"}
    assert not [tag for tag, _ in parts.tags if tag in ("link", "iframe", "object", "embed", "form", "base")]


def test_names_and_labels_are_text_whatever_they_say(page: str) -> None:
    parts = Parts(page)
    assert [tag for tag, _ in parts.tags].count("script") == 1
    assert not [name for _, attributes in parts.tags for name in attributes if name.startswith("on")]
    assert EVIL in parts.text and Path(NAMES[2]).name in parts.text
    assert "default-src 'none'" in page, "were there a hole, the browser would not run what is in it"


def test_the_numbers_of_the_run_are_told(page: str) -> None:
    parts = Parts(page)
    for told in (
        "finished 21 November 2026, 20:58 UTC",
        "model demo",
        "3122fd32",
        "cpu, bfloat16",
        "velora label <in>",
    ):
        assert told in parts.text
    numbers = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)", page))
    recorded = 4 * (19 * PERIOD_US + 10_000) / 1e6
    labelled = (3 * (17 * PERIOD_US + 10_000) + 9 * PERIOD_US) / 1e6  # the last span ends with the recording
    assert numbers["recordings"].strip() == "4" and "1 failed" in parts.text
    assert (
        numbers["recorded"] == f"{recorded:.2f} s"
        and numbers["labelled"].strip() == f"{int(100 * labelled / recorded)}%"
    )
    assert (numbers["spans"].strip(), numbers["windows"], numbers["corrected"].strip()) == ("11", "8", "1")
    assert numbers["last run"].strip() == "3.2 ×"


def test_what_failed_is_told_with_its_reason(page: str) -> None:
    assert re.search(r"<td>broken.aedat4</td><td>the file is empty; record or copy it again</td>", page)


class TestTracks:
    """What the page is made of."""

    def test_labels_add_up(self, out: Path) -> None:
        tracks = tracks_of(read_results(out, strict=True))
        amounts = {amount.label: amount for amount in amounts_of(tracks)}
        assert list(amounts) == ["walk", "sit", EVIL, "fall"]
        walk = amounts["walk"]
        last_us = 5 * PERIOD_US + 10_000  # of the span that ends with the recording
        assert walk.seconds == pytest.approx(3 * (5 * PERIOD_US + last_us) / 1e6)
        assert (walk.spans, walk.recordings) == (6, 3)
        assert (
            walk.confidence == pytest.approx((5 * PERIOD_US * 0.9 + last_us * 0.7) / (5 * PERIOD_US + last_us))
            and amounts["fall"].confidence is None
        )

    def test_time_counts_once_where_spans_overlap(self, tmp_path: Path) -> None:
        rows = ((at(0), at(6), "a", None), (at(2), at(4), "b", None), (at(5), at(8), "c", 0.2), (0, at(1), "d", 0.1))
        (track,) = tracks = tracks_of(read_results(write_outputs(tmp_path, {"a.aedat4": rows}), strict=True))
        assert labelled_seconds(tracks) == pytest.approx(8 * PERIOD_US / 1e6)
        assert (track.start_us, track.end_us) == (START_US, at(19) + 10_000)
        assert [doubt.row.label for doubt in doubts_of(tracks, 9)] == ["d", "c"], "people are sure"
        assert [doubt.middle_us for doubt in doubts_of(tracks, 1)] == [(START_US + at(1)) // 2]

    def test_a_recording_without_windows_has_a_length(self, tmp_path: Path) -> None:
        out = write_outputs(tmp_path, {"a.aedat4": (), "b.aedat4": SPANS})
        for name in ("a", "b"):
            (out / f"{name}.aedat4.windows.jsonl").write_text("")
        lengths = [track.seconds for track in tracks_of(read_results(out, strict=True))]
        assert lengths == [pytest.approx(20 * PERIOD_US / 1e6, abs=1e-5)] * 2

    @pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
    @pytest.mark.parametrize("count", [1, 2, 9_000])
    def test_every_format_of_windows_tells_begin_and_end(self, tmp_path: Path, kind: str, count: int) -> None:
        path = tmp_path / f"a.windows.{kind}"
        writer = window_writer(kind, path)
        told: dict[str, Any] = {"recording": 'ü,"\n.aedat4', "label": "=x", "confidence": 0.5, "unsure": False}
        told |= {"topk": [("=x", 0.5), ("y", 0.2)], "model": "m", "settings": "s"}
        for k in range(count):
            writer.add({**told, "recording": "ü, x", "start_us": 1_000 * k - 7, "end_us": 1_000 * k + 500})
        writer.close()
        assert extent_of(path) == (-7, 1_000 * (count - 1) + 500)

    @pytest.mark.parametrize("text", ["", "\n", "{}", "not json\n", '{"start_us": 5, "end_us": 5}\n', "a,b\n"])
    @pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "txt"])
    def test_what_tells_nothing_is_passed_over(self, tmp_path: Path, kind: str, text: str) -> None:
        (tmp_path / f"a.{kind}").write_text(text)
        assert extent_of(tmp_path / f"a.{kind}") is None and extent_of(tmp_path / "gone.jsonl") is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0.00 s"), (4.256, "4.26 s"), (45.67, "45.7 s"), (83.44, "1:23.4"), (119.99, "1:59.9"), (7_500, "2 h 05 min")],
)
def test_times_are_for_people(seconds: float, told: str) -> None:
    assert seconds_as_text(seconds) == told


def jpegs(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1] for data in found
    ]


def test_the_least_certain_spans_come_first_with_what_was_seen(page: str) -> None:
    sure = [int(share) for share in re.findall(r"<em>(\d+)%</em>", page)]
    assert sure == [31, 55, 55, 55, 70, 70, 70, 90, 90, 90]
    pictures = jpegs(page)
    assert {picture.shape for picture in pictures} == {(240, 2 * 320 + 8, 3)}
    middles = [3, 9, 9, 9, 17, 17, 17, 3, 3, 3]  # the samples in the middle of these spans, or after it
    for picture, sample in zip(pictures, middles, strict=True):
        bright = np.flatnonzero(picture[100, :320, 0] > 150) // 5
        assert abs(bright.min() - (3 * sample) % 52) <= 1, "the square is where it was then"
        assert (picture[:, 330:].min(axis=2) > 200).mean() > 0.6, "and the events beside it"


def test_as_many_as_are_wanted(out: Path) -> None:
    assert len(jpegs(reported(out, "--doubts", "2")[0])) == 2
    bare, _ = reported(out, "--doubts", "0")
    assert not jpegs(bare) and "Least certain" not in bare
    reported(out)


def test_what_cannot_be_read_is_told_and_stops_nothing(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {f"{name}.aedat4": SPANS for name in "abcd"})
    Place(out, "a.aedat4").labels.write_text("recording,start_us,end_us,label\na.aedat4,5,x,walk\n")
    Place(out, "b.aedat4").labels.unlink()
    (tmp_path / "in" / "c.aedat4").unlink()
    (tmp_path / "in" / "d.aedat4").write_bytes(b"broken")
    page, stderr = reported(out)
    assert stderr == f"{out}/report.html: 2 recordings, 6 spans; 2 could not be labelled or read\n"
    text = Parts(page).text
    assert f"{out}/a.aedat4.labels.csv, line 2: " in text and "b.aedat4.labels.csv is gone" in text
    assert text.count("the recording has gone or changed") == 6


def test_recordings_that_have_moved_are_found(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"x/a.aedat4": SPANS})
    shutil.move(tmp_path / "in", tmp_path / "moved")
    assert not jpegs(reported(out)[0])
    assert len(jpegs(reported(out, "--recordings", tmp_path / "moved")[0])) == 3


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    for arguments, told in (
        ([tmp_path / "in"], "in: holds nothing that `velora label --out` wrote"),
        ([out, "--out", tmp_path], "is a folder: --out names a file"),
        ([out, "--recordings", tmp_path / "no"], "no is no folder"),
    ):
        code, stdout, stderr = run("report", *arguments)
        assert (code, stdout) == (1, "") and told in stderr and len(stderr.splitlines()) == 1
    assert not (out / "report.html").exists()


def test_ctrl_c_leaves_the_page_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    before, _ = reported(out)
    write_note_of(out, write_square(tmp_path / "in" / "b.aedat4", 20), "b.aedat4", SPANS)
    no_picture = Thumbnail(failure="interrupted")
    interrupt = Mock(side_effect=lambda *_: signal.raise_signal(signal.SIGINT) or no_picture)
    monkeypatch.setattr("app.label_report.thumbnails._drawn", interrupt)
    assert run("report", out)[0] == 130 and interrupt.called
    assert (out / "report.html").read_text() == before and not list(out.glob(".*.part"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class TestBrowser:
    """The page as a person has it before them."""

    @pytest.fixture
    def open_page(self, browser: Any, out: Path, page: str) -> Iterator[Callable[..., Any]]:
        """Opens the file; afterwards nothing may have gone wrong, nor anything been asked for."""
        wrong: list[str] = []
        (out / "report.html").write_text(page, encoding="utf-8")

        def open_page(size: tuple[int, int] = (1440, 900), scheme: str = "light") -> Any:
            tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
            tab.on("console", lambda line: wrong.append(line.text))
            tab.on("pageerror", lambda error: wrong.append(str(error)))
            tab.on("dialog", lambda dialog: wrong.append(dialog.message))
            tab.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url))
            tab.goto(f"file://{out}/report.html")
            return tab

        yield open_page
        assert wrong == []

    def test_pictures_are_there_and_nothing_is_wider_than_the_screen(self, open_page: Callable[..., Any]) -> None:
        for size, scheme in (((1440, 900), "light"), ((390, 844), "dark")):
            tab = open_page(size, scheme)
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            tab.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
            tab.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth === 648)")
            light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert light == (scheme == "light")
            tab.close()

    def test_recordings_are_found_by_name_and_by_label(self, open_page: Callable[..., Any]) -> None:
        tab = open_page()
        shown = "[...document.querySelectorAll('.row')].filter(row => row.checkVisibility()).length"
        assert tab.evaluate(shown) == 4
        for words, count in (("day", 3), ("DAY walk", 2), ("fall", 1), ("corrected", 1), ("nobody", 0), ("onerror", 1)):
            tab.fill("#find input", words)
            assert (tab.evaluate(shown), tab.text_content("#count")) == (count, f"{count} found")
        tab.fill("#find input", "")
        assert (tab.evaluate(shown), tab.text_content("#count")) == (4, "")

    def test_a_span_says_what_and_when_it_is(self, open_page: Callable[..., Any]) -> None:
        tab = open_page()
        row = tab.locator(".row svg").nth(1)
        row.scroll_into_view_if_needed()
        box = row.bounding_box()
        for share, told in ((0.1, "walk · 0.00 s – 0.17 s"), (0.45, "sit · 0.17 s – 0.40 s")):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + 10)
            assert tab.text_content("#tip") == told and tab.is_visible("#tip")
        tab.mouse.move(box["x"] + 0.68 * box["width"], box["y"] + 10)
        assert not tab.is_visible("#tip"), "nothing is said of this moment"

    def test_spans_are_as_high_as_they_are_sure(self, open_page: Callable[..., Any]) -> None:
        tab = open_page()
        heights = tab.evaluate(
            "[...document.querySelectorAll('#r0 path')].map(p => [p.dataset.label, p.getBBox().height])"
        )
        assert dict(heights)["sit"] < dict(heights)["walk"] < 20

    def test_a_doubt_leads_to_its_recording(self, open_page: Callable[..., Any]) -> None:
        tab = open_page()
        tab.evaluate("document.querySelectorAll('details').forEach(group => { group.open = false; })")
        tab.click("figcaption a >> nth=1")
        tab.wait_for_function("document.querySelector('.row:target')?.checkVisibility()")


def test_it_starts_without_torch_as_export_does() -> None:
    code = "import sys, app.label_report.command, app.export.command; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout == "False\n", said.stderr
