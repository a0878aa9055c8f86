"""The second view of the page, in a real browser: a folder is labelled, looked through, corrected and exported."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access import Access
from app.channel import Settings
from app.label_file import read_label_rows
from app.labelling.notes import Place, read_note, write_note
from app.page import Page
from recordings import bundled
from streams import Source, open_source
from tests.app.fakes import FakeRecognizer
from tests.app.label_outputs import SPANS, write_outputs
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser  # noqa: F401 (a fixture)
from velora import load_recognizer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

ROWS = "[...document.querySelectorAll('#rows tr')].map(r => r.cells[0].textContent)"
CUT = """[...document.querySelectorAll("#view input[placeholder]")].filter((field) => {
  const style = getComputedStyle(field), pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  const arrows = field.type === "number" ? 16 : 0;
  const ends = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  return field.offsetWidth > 0 && pen.measureText(field.placeholder).width > field.clientWidth - ends - arrows;
}).map((field) => field.id)"""
_LONG_MS = 400_000  # what runs at the lowest priority waits for all else, on slow machines


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Tab]]:  # noqa: F811
    """A tab of a page that may open what is in a folder."""
    pages: list[Page] = []
    tabs: list[Tab] = []

    def opened(load: Callable[[], Any] = FakeRecognizer, **options: Any) -> Tab:
        options = {"access": Access(folders=(tmp_path,)), "models": lambda: {"demo": "demo"}, **options}
        pages.append(Page(load, {"cards": bundled()["cards"]}, **options))
        tabs.append(Tab(browser, pages[-1].url))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.close()
    for page in pages:
        page.close()
    assert [error for tab in tabs for error in tab.errors] == []


def test_what_empty_fields_say_is_not_cut_off(opened: Callable[..., Tab]) -> None:
    tab = opened()
    tab.page.click("#tuning summary")
    assert tab.page.locator("#address").is_visible() and tab.page.locator("#stride").is_visible()
    assert tab.page.evaluate(CUT) == []
    tab.page.click("[data-view=folder]")
    assert tab.page.locator("#batch-folder").is_visible() and tab.page.evaluate(CUT) == []


def test_a_folder_is_labelled_reviewed_corrected_and_exported(opened: Callable[..., Tab], tmp_path: Path) -> None:
    folder = tmp_path / "my recordings"
    for name in ("monday/a.aedat4", "tuesday/a.aedat4"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(bundled()["cards"], folder / name)
    (folder / "broken.aedat4").write_bytes(b"\xff" * 500)
    tab = opened(lambda: load_recognizer("demo"))
    tab.page.click("[data-view=folder]")
    assert not tab.page.locator("#stage").is_visible()
    tab.page.fill("#batch-folder", str(folder))
    tab.page.click("#label-folder")
    tab.wait("!document.getElementById('stop-folder').hidden")
    tab.page.wait_for_function(f"{SHOWN.format('batch-told')}.includes('The labels are in')", timeout=_LONG_MS)
    tab.wait(f"{ROWS}.join() === 'monday/a.aedat4,tuesday/a.aedat4'")
    assert "1 could not be read" in tab.text("batch-told") and "broken.aedat4" in tab.text("failures")
    assert "2 recordings, 1 failed, 28 s" in tab.text("set-told")
    tab.page.select_option("#set-order", "doubt")
    tab.page.click("#doubts button")
    tab.wait(f"{SHOWN.format('reviewed')}.startsWith('Reviewing monday/a.aedat4: is it ')")
    tab.wait("document.getElementById('own-label').value !== '' && !document.getElementById('mark').disabled")
    doubted = tab.page.input_value("#own-label")
    tab.moves()
    labels = Place(folder / "velora-labels", "monday/a.aedat4").labels
    before = read_label_rows(labels)
    tab.page.fill("#own-label", "a new word")
    tab.page.click("#mark")
    tab.wait("[...document.querySelectorAll('#spans .chip')].some(c => c.textContent.includes('a new word'))")
    after = read_label_rows(labels)
    (own,) = (row for row in after if row.label == "a new word")
    replaced = [row for row in before if row.start_us < own.end_us and own.start_us < row.end_us]
    assert doubted in [row.label for row in replaced] and own.confidence is None
    assert not (folder / "monday/a.labels.csv").exists()  # beside the recording, there is none
    doubt = f"{SHOWN.format('reviewed')} + {SHOWN.format('marked')}"
    while (before_it := tab.page.evaluate(doubt)).startswith("Reviewing monday"):
        tab.page.click("#review-next")
        tab.wait(f"{doubt} !== {json.dumps(before_it)}")
    tab.wait(f"{SHOWN.format('spans')} !== '' && !{SHOWN.format('spans')}.includes('a new word')")
    tab.page.click("#review-back")
    tab.wait("[...document.querySelectorAll('#rows tr')].some(r => r.cells[2].textContent.includes('corrected'))")
    tab.page.click("#export-folder")
    tab.page.wait_for_function(f"{SHOWN.format('batch-told')}.includes('The export is in')", timeout=_LONG_MS)
    (table,) = (folder / "velora-labels/export-csv").glob("*.csv")
    with table.open(newline="") as file:
        assert "a new word" in [row["label"] for row in csv.DictReader(file)]


def test_a_labelled_folder_is_shown_in_parts_that_are_searched(opened: Callable[..., Tab], tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {f"{k:02d}<b>.aedat4": SPANS for k in range(60)})
    tab = opened()
    tab.page.click("[data-view=folder]")
    tab.page.fill("#batch-out", str(out))
    tab.page.click("#show-folder")
    tab.wait(f"{ROWS}.length === 50")
    assert tab.page.evaluate(ROWS)[0] == "00<b>.aedat4" and tab.page.locator("#batch b").count() == 1
    tab.page.click("#set-on")
    tab.wait(f"{ROWS}.join() === '{','.join(f'{k}<b>.aedat4' for k in range(50, 60))}'")
    tab.page.fill("#set-text", "07")
    tab.wait(f"{ROWS}.join() === '07<b>.aedat4'")
    box = tab.page.locator("#rows canvas").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 5)
    tab.wait("!document.getElementById('watch').hidden")
    tab.wait(f"{SHOWN.format('status')}.includes('07<b>.aedat4')")
    tab.page.reload()
    tab.wait("document.getElementById('strip')?.naturalWidth > 0")
    tab.errors.clear()  # of the page that went: its token is none any more
    tab.page.click("[data-view=folder]")
    tab.wait(f"{ROWS}.length === 50")


def test_a_doubt_is_marked_on_the_recording_that_it_is_of(opened: Callable[..., Tab], tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS, "b.aedat4": SPANS[1:2]})

    def slow(uri: Path | str) -> Source:
        time.sleep(0.6)
        return open_source(uri)

    tab = opened(settings=Settings(opened=slow))
    tab.page.click("[data-view=folder]")
    tab.page.fill("#batch-out", str(tmp_path / "nowhere"))
    tab.page.click("#show-folder")
    tab.wait(f"{SHOWN.format('message')}.includes('nowhere')")
    tab.page.wait_for_timeout(800)
    assert "nowhere" in tab.text("message")  # long enough to be read
    tab.page.fill("#batch-out", str(out))
    tab.page.click("#show-folder")
    tab.page.click("#doubts button >> nth=0")
    tab.wait(f"{SHOWN.format('reviewed')}.startsWith('Reviewing a.aedat4: is it sit')")
    tab.page.click("#review-next")
    tab.page.wait_for_timeout(150)
    tab.page.click("#review-next")  # before the one before is open
    tab.wait(f"{SHOWN.format('reviewed')}.startsWith('Reviewing a.aedat4: is it walk')")
    tab.wait(f"{SHOWN.format('marked')} === '0:00.5 to 0:00.7'")
    assert tab.page.input_value("#own-label") == "walk"
    tab.page.click("[data-view=watch]")
    tab.page.select_option("#choice", "cards")
    tab.page.wait_for_selector("#review", state="hidden")
    tab.wait(f"{SHOWN.format('status')}.includes('cards.aedat4')")
    assert tab.page.locator("#mark").is_disabled()


def test_without_a_folder_that_is_allowed_it_says_how(opened: Callable[..., Tab]) -> None:
    tab = opened(access=Access())
    tab.page.click("[data-view=folder]")
    assert "--allow FOLDER" in tab.text("batch") and not tab.page.locator("#label-folder").is_visible()


def test_only_what_is_allowed_is_labelled_shown_and_opened(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    out = write_outputs(inside, {"a.aedat4": SPANS, "b.aedat4": SPANS})
    write_outputs(outside, {"c.aedat4": SPANS})
    for name, change in {  # as a stranger may have written them
        "a.aedat4": {"source": str(outside / "in/c.aedat4")},
        "b.aedat4": {"labels_file": "../../outside/out/c.aedat4.labels.csv"},
    }.items():
        note = read_note(Place(out, name).note)
        assert note is not None
        write_note(Place(out, name), replace(note, **change))
    with Page(FakeRecognizer, {"cards": bundled()["cards"]}, access=Access(folders=(inside,))) as page:
        token = page.viewers.open("x", bundled()["cards"])

        def asked(name: str, **values: Any) -> str:
            return str(httpx.post(f"{page.url}act/{token}/{name}", json=values).json()["message"])

        for path in (str(outside), f"{inside}/../outside", "/etc", "~"):
            assert "--allow" in asked("label_folder", folder=path)
            assert "--allow" in asked("label_folder", folder=str(inside), out=path)
            assert "--allow" in asked("export_folder", out=path, to="csv")
            assert "--allow" in httpx.get(f"{page.url}folder/{token}", params={"out": path}).json()["message"]
        assert "--allow" in asked("review", out=str(out), recording="a.aedat4", start_us=0)
        assert "no labels of" in asked("review", out=str(out), recording="b.aedat4", start_us=0)
        assert "no export for" in asked("export_folder", out=str(out), to="exe")
        assert "no labels of" in asked("review", out=str(out), recording="../c", start_us=0)
        assert httpx.get(f"{page.url}folder/guessed", params={"out": str(out)}).json()["message"]


def test_guests_have_no_such_view(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    access = Access(open_to_others=True, folders=(tmp_path,))
    with Page(FakeRecognizer, {"cards": bundled()["cards"]}, access=access) as page:
        tab = Tab(browser, page.url)
        tab.wait("document.getElementById('views').hidden")
        (token,) = page.viewers.counted()
        told = httpx.get(f"{page.url}folder/{token}", params={"out": str(out)}).json()
        assert "for operators" in told["message"] and "rows" not in told
        tab.page.close()


def test_a_folder_that_has_gone_is_not_asked_for_again(opened: Callable[..., Tab], tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    tab = opened()
    tab.page.click("[data-view=folder]")
    tab.page.click("#show-folder")
    tab.wait(f"{SHOWN.format('message')}.includes('Say which folder')")
    tab.page.fill("#batch-out", str(out))
    tab.page.click("#show-folder")
    tab.wait(f"{ROWS}.length === 1")
    shutil.rmtree(out)
    tab.page.click("[data-view=watch]")
    tab.page.click("[data-view=folder]")
    tab.wait(f"{SHOWN.format('message')}.includes('{out.name}')")
    assert tab.page.evaluate("document.querySelectorAll('#folders option').length") >= 1
    assert str(out) not in tab.page.evaluate("JSON.stringify(localStorage)")
