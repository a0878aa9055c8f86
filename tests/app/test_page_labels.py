"""Labels by hand and teaching, on the page in a real browser."""

from __future__ import annotations

import csv
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.lessons import Lessons
from app.page import Page
from app.school import School
from app.teach import TeachingState
from streams.record import labels_of
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser  # noqa: F401 (a fixture)
from velora import load_recognizer
from velora.loading import DEMO

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

CHIPS = "[...document.querySelectorAll('#{} .chip button:first-child')].map(b => b.textContent)"


class QuickTeaching:
    """Learns at once, when it is let: the model that comes of it is the demo's, under another name."""

    go_on = threading.Event()

    def __init__(self, lessons: Lessons, base: object, folder: Path, name: str, weights: object) -> None:
        assert base == "demo" and not lessons.untaught()
        self._target, self._state = folder / name, TeachingState()

    def wait(self, timeout_s: float) -> bool:
        if self._state.over:
            return True
        self._state = TeachingState("training", 3, 9, 0.5, 0.75, 0.5, 0.25, 8.0, "Learning: step 3 of 9")
        if not self.go_on.wait(timeout_s):
            return False
        shutil.copytree(DEMO, self._target)
        self._state = TeachingState("done", validation=0.9, message="Done: right in 90%", model=self._target)
        return True

    def state(self) -> TeachingState:
        return self._state

    def stop(self) -> None:
        """It is over by then."""


@pytest.fixture
def recording(small_recording: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(small_recording, tmp_path / "mine, of today.aedat4"))


@pytest.fixture
def page(recording: Path, tmp_path: Path) -> Iterator[Page]:
    school = School(tmp_path / "data")
    models = {"demo": "demo"}
    with Page(
        lambda: load_recognizer("demo"),
        {"mine": recording},
        school=school,
        models=lambda: {**models, **school.models()},
    ) as page:
        yield page


@pytest.fixture
def tab(browser, page: Page) -> Iterator[Tab]:  # noqa: F811
    tab = Tab(browser, page.url)
    tab.wait(f"{SHOWN.format('clock')}.includes('/ 0:02')")
    yield tab
    tab.page.close()
    assert tab.errors == []


def drag(tab: Tab, start: float, end: float) -> None:
    """Along the timeline, in shares of its length."""
    box = tab.page.locator("#timeline").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * start, box["y"] + 20)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] * end, box["y"] + 20, steps=4)
    tab.page.mouse.up()


def label(tab: Tab, start: float, end: float, text: str) -> None:
    drag(tab, start, end)
    tab.page.fill("#own-label", text)
    tab.page.press("#own-label", "Enter")


def rows_of(recording: Path) -> list[tuple[float, float, str]]:
    """Seconds from the beginning, and labels, as the file beside the recording has them."""
    with labels_of(recording).open(newline="") as file:
        rows = list(csv.DictReader(file))
    origin = min(int(row["start_us"]) for row in rows) // 10**9 * 10**9
    assert all(row["recording"] == recording.name for row in rows)
    return [((int(r["start_us"]) - origin) / 1e6, (int(r["end_us"]) - origin) / 1e6, r["label"]) for r in rows]


def test_a_label_is_given_corrected_taken_back_and_saved(tab: Tab, recording: Path, tmp_path: Path) -> None:
    label(tab, 0.1, 0.5, "square")
    tab.wait(f"{CHIPS.format('spans')}.join() === '0:00.2 square'")
    assert [row[2] for row in rows_of(recording)] == ["square"]
    label(tab, 0.4, 0.7, "circle")  # what it overlaps is replaced
    tab.wait(f"{CHIPS.format('spans')}.join() === '0:00.2 square,0:00.8 circle'")
    first, second = rows_of(recording)
    assert first[1] == second[0] and second[1] - first[0] == pytest.approx(1.2, abs=0.05)
    tab.download(lambda: tab.page.click("#labels-csv"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == labels_of(recording).read_bytes()
    tab.page.click("#undo")
    tab.wait(f"{CHIPS.format('spans')}.length === 1")
    drag(tab, 0.05, 0.3)
    tab.page.click("#erase")
    tab.wait(f"{CHIPS.format('spans')}.join() === '0:00.6 square'")
    tab.page.click("#spans .chip button:last-child")
    tab.wait(f"{CHIPS.format('spans')}.length === 0")
    tab.page.click("#undo")  # also of the last one
    tab.wait(f"{CHIPS.format('spans')}.join() === '0:00.6 square'")


def test_enter_that_ends_the_writing_of_a_word_saves_nothing(tab: Tab) -> None:
    drag(tab, 0.1, 0.5)
    tab.page.fill("#own-label", "走")
    for told in ("isComposing: true", "keyCode: 229"):  # as browsers tell it where words are composed
        event = f"new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, {told}}})"
        tab.page.evaluate(f"document.getElementById('own-label').dispatchEvent({event})")
    tab.page.wait_for_timeout(500)
    assert not tab.page.evaluate(CHIPS.format("spans"))
    tab.page.press("#own-label", "Enter")
    tab.wait(f"{CHIPS.format('spans')}.join() === '0:00.2 走'")


def test_brackets_mark_from_where_it_plays(tab: Tab) -> None:
    tab.page.click("#play")
    tab.stands()
    tab.page.keyboard.press("[")
    for _ in range(5):
        tab.page.keyboard.press("ArrowRight")
        tab.page.wait_for_timeout(150)
    tab.page.keyboard.press("]")
    tab.wait(f"/ to /.test({SHOWN.format('marked')})")
    tab.page.fill("#own-label", "here")
    tab.page.click("#mark")
    tab.wait(f"{CHIPS.format('spans')}.length === 1")


def test_labels_that_are_none_are_said(tab: Tab) -> None:
    drag(tab, 0.1, 0.5)
    tab.page.fill("#own-label", " ")
    tab.page.click("#mark")
    tab.wait(f"{SHOWN.format('message')}.includes('Type a label')")


def test_a_broken_label_file_is_named_and_left_alone(browser, page: Page, recording: Path) -> None:  # noqa: F811
    labels_of(recording).write_text("recording,start_us\nx,1\n")
    tab = Tab(browser, page.url)
    label(tab, 0.1, 0.5, "square")
    tab.wait(f"{SHOWN.format('message')}.includes('labels.csv')")
    assert labels_of(recording).read_text() == "recording,start_us\nx,1\n"
    tab.moves()
    tab.page.close()


def test_a_model_is_taught_and_swapped_in_while_the_view_goes_on(
    tab: Tab, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    QuickTeaching.go_on.clear()
    monkeypatch.setattr("app.school.Teaching", QuickTeaching)
    assert tab.page.is_disabled("#teach")
    for k, name in enumerate(["left", "right", "left", "right"]):
        drag(tab, 0.1 + 0.2 * k, 0.25 + 0.2 * k)
        tab.page.fill("#own-label", name)
        tab.page.click("#example")
        tab.wait(f"{SHOWN.format('message')} === '{k // 2 + 1} example{'s' * (k > 1)} of {name}'")
    tab.wait(f"{CHIPS.format('examples')}.join() === 'left × 2,right × 2'")
    tab.page.fill("#new-name", "mine")
    tab.page.click("#teach")
    tab.wait(f"{SHOWN.format('teaching')}.includes('Learning: step 3 of 9 · right in 75 % · held out 50 %')")
    tab.moves()
    QuickTeaching.go_on.set()
    tab.wait(f"{SHOWN.format('message')} === 'mine has learned, and is in use'")
    tab.wait("document.getElementById('model').value === 'mine'")
    tab.wait(f"{SHOWN.format('teaching')} === 'Done: right in 90%'")
    tab.page.select_option("#model", "demo")
    tab.wait("document.getElementById('model').value === 'demo'")
    tab.page.click("#examples .chip button:last-child")
    tab.wait(f"{CHIPS.format('examples')}.join() === 'right × 2'")
    assert page.school.counts() == {"right": 2}


def test_brackets_mark_and_those_of_the_browser_do_not(tab: Tab) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            tab.page.keyboard.press(key)
            tab.page.wait_for_timeout(400)

    press("Meta+[", "Control+]")
    assert not tab.page.evaluate("document.getElementById('hand').open")
    press("[", "]")
    assert tab.page.evaluate("document.getElementById('hand').open")


def test_the_timeline_speaks(tab: Tab) -> None:
    bar = "document.getElementById('timeline')"
    tab.wait(f"/^0:0[0-2][.0-9]*, ./.test({bar}.getAttribute('aria-valuetext'))")
    assert tab.page.evaluate(f"{bar}.getAttribute('aria-valuemax')") == "2"
