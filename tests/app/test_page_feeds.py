"""Each control of the page, in a real browser, on a recording of a real camera and on a live network source."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.access import Access
from app.channel import Settings
from app.demo import loader_of_others
from app.page import Page
from app.school import School
from app.teach import Teaching
from recordings import bundled
from streams import RgbFrame, open_source
from streams.items import Item
from streams.record import labels_of
from streams.source import Through
from tests.app.fakes import FakeRecognizer, until, viewer_threads
from tests.app.test_live import Program
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser, demo_arguments  # noqa: F401 (a fixture)
from tests.app.test_page_controls import COLOURS, VISIBLE, saved_predictions
from tests.app.test_page_labels import CHIPS, drag, label
from tests.app.test_teach import FEW
from tests.conftest import SMALL_CLIP, SmallClip
from velora import load_recognizer
from velora.loading import DEMO

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

LABELLED = "document.querySelector('#bars .name').textContent !== ''"
FIGURE = "[...document.querySelectorAll('#status dt')].find(t => t.textContent === '{}').nextSibling.textContent"
POSITION = f"parseFloat({FIGURE.format('Time')})"
_LONG_MS = 400_000  # what runs at the lowest priority waits for all else, on slow machines


class Feed:
    """A page that plays one source, with all that can be done to it allowed, and a tab of it."""

    def __init__(self, page: Page, tab: Tab, folder: Path, live: bool) -> None:
        self.page, self.tab, self.folder, self.live = page, tab, folder, live


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of the bundled recording, sent over a socket by a process of its own."""
    server = Program("serve", str(bundled()["cards"]), "--loop")
    yield server.line().strip()
    server.kill()


@pytest.fixture(params=["a real camera's recording", "a network source"])
def feed(
    request: pytest.FixtureRequest,
    browser: Any,  # noqa: F811
    served: str,
    real_recording: Callable[[str], Path],
    tmp_path: Path,
) -> Iterator[Feed]:
    live = request.param == "a network source"
    address = served if live else Path(shutil.copy(real_recording("cuke_davis346"), tmp_path / "cuke.aedat4"))
    school = School(tmp_path / "data")
    other = Path(shutil.copytree(DEMO, tmp_path / "twin"))
    offered = {"demo": "demo", "twin": other}
    with Page(
        lambda: load_recognizer("demo"),
        {"feed": address, "cards": bundled()["cards"]},
        settings=Settings(record_to=tmp_path),
        access=Access(folders=(tmp_path,), uris=True),
        models=lambda: {**offered, **school.models()},
        school=school,
    ) as page:
        tab = Tab(browser, page.url)
        if not live:  # half a second, again and again: it holds no window of another stride
            tab.page.select_option("#speed", "0.25")
            tab.page.click("#tuning summary")
            tab.page.fill("#stride", "1")
            tab.page.keyboard.press("Tab")
            tab.page.click("#tuning summary")
        yield Feed(page, tab, tmp_path, live)
        tab.page.close()
        assert tab.errors == []
    until(lambda: not viewer_threads())


@pytest.fixture
def tab(feed: Feed) -> Tab:
    return feed.tab


def test_what_the_sensor_sees_and_what_the_model_thinks(feed: Feed, tab: Tab) -> None:
    for key, pane in (("1", "rgb"), ("2", "events"), ("3", "motion"), ("4", "blend")):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate(VISIBLE) == pane
        tab.wait(f"({COLOURS})('{pane}')[0] === 346")
    tab.page.fill("#opacity", "40")
    tab.page.click("#opacity")
    tab.page.select_option("#palette", "safe")
    tab.page.keyboard.press("4")
    assert tab.page.evaluate(VISIBLE) == "rgb,events,motion"
    tab.wait(LABELLED)
    tab.changes("bars")
    assert not tab.page.evaluate("document.getElementById('label').textContent").startswith("…")
    for name in ("Source", "Shown", "Labels"):
        tab.wait(f"parseFloat({FIGURE.format(name)}) > 0")
    for name in ("Latency p50, p95", "On screen"):
        tab.wait(f"/^[0-9]+, [0-9]+ ms$/.test({FIGURE.format(name)})")
    tab.wait(f"/ms late/.test({FIGURE.format('Source')}) === {str(feed.live).lower()}")
    box = tab.page.locator("#timeline").bounding_box()
    tab.page.mouse.move(box["x"] + box["width"] * (0.01 if feed.live else 0.5), box["y"] + 20)
    tab.wait(f"{SHOWN.format('tip')}.includes('Mev/s')")


def test_playing(feed: Feed, tab: Tab) -> None:
    tab.page.keyboard.press("Space")
    tab.wait(f"{SHOWN.format('play')} === 'Play'")
    tab.stands()
    assert "paused" in tab.text("status")
    recorded = [tab.page.locator(name).is_visible() for name in ("#restart", "#back", "#forward", "#speed", "#loop")]
    assert recorded == [not feed.live] * 5
    if not feed.live:
        tab.page.click("#restart")
        tab.page.click("#play")
        tab.stands()
        at = tab.text("clock")
        tab.page.keyboard.press("ArrowRight")
        tab.wait(f"{SHOWN.format('clock')} > '{at}'")
        tab.page.click("#back")
        tab.wait(f"{SHOWN.format('clock')} === '{at}'")
        box = tab.page.locator("#timeline").bounding_box()
        tab.page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 20)
        tab.wait(f"Math.abs({POSITION} - 0.38) < 0.1")
        tab.page.uncheck("#loop")
        tab.page.select_option("#speed", "0.25")
    tab.page.click("#play")
    if feed.live:
        tab.moves()
    else:
        tab.wait(f"{POSITION} > 0.45")
        tab.stands()


def test_stride_noise_and_words(feed: Feed, tab: Tab) -> None:
    tab.page.click("#tuning summary")
    tab.page.fill("#stride", "3" if feed.live else "2")
    tab.page.keyboard.press("Tab")
    tab.wait(f"/every {3 if feed.live else 2}/.test({FIGURE.format('Window')})")
    tab.page.check("#denoise")
    tab.wait("document.querySelectorAll('#status dd')[7].title.includes('noise')")
    tab.page.fill("#words", "waving, walking")
    tab.page.click("#ask-words")
    tab.wait(f"{SHOWN.format('message')}.includes('no text tower')")
    tab.moves()


def test_a_picture_and_the_predictions_are_saved(feed: Feed, tab: Tab, tmp_path: Path) -> None:
    tab.wait(LABELLED)
    tab.download(lambda: tab.page.click("#snapshot"), tmp_path / "shot.png")
    picture = np.asarray(Image.open(tmp_path / "shot.png"))
    assert picture.shape[1] == 3 * 346 + 16 and (picture[270:] < 100).any()
    rows, lines = saved_predictions(tab, tmp_path)
    assert rows and len(lines) >= len(rows) and all(row["label"] for row in rows)
    assert all(int(row["start_us"]) < int(row["end_us"]) for row in rows)


def test_a_span_is_labelled_where_there_is_a_past(feed: Feed, tab: Tab) -> None:
    if feed.live:
        assert not any(tab.page.locator(name).is_visible() for name in ("#mark", "#erase", "#undo", "#labels-csv"))
        return
    label(tab, 0.2, 0.6, "cuke")
    tab.wait(f"{CHIPS.format('spans')}.join().endsWith('cuke')")
    (row,) = csv.DictReader(labels_of(feed.folder / "cuke.aedat4").open())
    assert row["recording"] == "cuke.aedat4" and row["label"] == "cuke"
    assert 0.3 < (int(row["end_us"]) - int(row["start_us"])) / 511_000 < 0.5
    tab.page.click("#undo")
    tab.wait(f"{CHIPS.format('spans')}.length === 0")


def test_it_is_recorded_where_it_is_live(feed: Feed, tab: Tab) -> None:
    if not feed.live:
        assert not tab.page.locator("#record").is_visible()
        return
    tab.page.keyboard.press("r")
    tab.wait("/^Stop · 0:0[2-9]/.test(document.getElementById('record').textContent)")
    tab.page.keyboard.press("r")
    tab.wait(f"{SHOWN.format('message')}.includes(' events, ')")
    (made,) = feed.folder.glob("127-0-0-1-*.aedat4")
    with open_source(made) as source:
        assert sum(isinstance(item, RgbFrame) for item in source) > 40


def test_other_sources_are_watched_and_it_is_come_back_to(feed: Feed, tab: Tab, tmp_path: Path) -> None:
    tab.page.select_option("#choice", "cards")
    tab.wait(f"{FIGURE.format('Recording')} === 'cards.aedat4'")
    tab.moves()
    tab.page.click("#look")
    tab.wait(f"/found|no camera/.test({SHOWN.format('message')})")
    mine = Path(shutil.copy(bundled()["cards"], tmp_path / "mine.aedat4"))
    tab.page.fill("#address", str(mine))
    tab.page.click("#open")
    tab.wait(f"{FIGURE.format('Recording')} === 'mine.aedat4'")
    tab.page.fill("#address", "/etc/passwd")
    tab.page.click("#open")
    tab.wait(f"{SHOWN.format('message')}.includes('--allow')")
    bad = tmp_path / "bad.aedat4"
    bad.write_bytes(b"#!AER-DAT4.0\r\n" + b"\xff" * 400)
    tab.upload(bad)
    tab.wait(f"{SHOWN.format('message')}.startsWith('bad.aedat4')")
    tab.upload(mine)
    tab.wait(f"!{SHOWN.format('message')}")
    tab.moves()
    tab.page.select_option("#choice", "feed")
    tab.wait(f"{FIGURE.format('Recording')} !== 'mine.aedat4'")
    tab.moves()


def test_model_and_source_change_together(feed: Feed, tab: Tab) -> None:
    """However they cross on their way, the page ends with what was chosen last, and its labels are that model's."""
    answered: list[str] = []
    tab.page.on("requestfinished", lambda request: answered.append(request.url.rpartition("/")[2]))
    for model, source in (("twin", "cards"), ("demo", "feed"), ("twin", "feed"), ("twin", "cards"), ("demo", "feed")):
        tab.page.select_option("#model", model)
        tab.page.select_option("#choice", source)
    tab.page.select_option("#model", "twin")
    tab.wait("document.getElementById('model').value === 'twin' && document.getElementById('choice').value === 'feed'")
    for _ in range(600):
        if answered.count("use_model") + answered.count("choose") == 11:
            break
        tab.page.wait_for_timeout(50)
    tab.wait(f"{FIGURE.format('Recording')} !== 'cards.aedat4'")
    tab.moves()
    (viewer,) = feed.page.viewers.counted().values()
    assert viewer.channel.recognizer.name == "twin" and tab.text("message") == ""


def test_a_model_is_taught_from_examples_of_the_feed(feed: Feed, tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training itself, with fewer passes than people get; and the view goes on."""

    class Short(Teaching):
        def __init__(self, *places: Any, weights: str | None) -> None:
            super().__init__(*places, weights=weights, options=FEW)

    monkeypatch.setattr("app.school.Teaching", Short)
    tab.page.click("#hand summary")
    for k, name in enumerate(("thumb", "fist") * 2):
        if feed.live:
            tab.page.fill("#own-label", name)
            tab.page.click("#clip")
            tab.wait(f"{SHOWN.format('clip')} === 'End example of {name}'")
            tab.page.wait_for_timeout(700)
            tab.page.click("#clip")
        else:
            drag(tab, 0.1 + 0.2 * k, 0.3 + 0.2 * k)
            tab.page.fill("#own-label", name)
            tab.page.click("#example")
        tab.wait(f"{SHOWN.format('message')} === '{k // 2 + 1} example{'s' * (k > 1)} of {name}'")
    tab.page.fill("#new-name", "hands")
    tab.page.click("#teach")
    tab.wait(f"/^(Reading|Starting|Learning)/.test({SHOWN.format('teaching')})")
    tab.moves()
    said = f"/^(Done|the training|velora)/.test({SHOWN.format('teaching')})"
    tab.page.wait_for_function(said, timeout=_LONG_MS)
    assert tab.text("teaching").startswith("Done: right in ")
    tab.wait("document.getElementById('model').value === 'hands'")
    tab.moves()
    if feed.live:
        tab.wait("/^(thumb|fist)/.test(document.querySelector('#bars .name').textContent)")


def test_words_are_recognised_by_a_clip_with_a_text_tower(browser: Any, served: str, small_clip: SmallClip) -> None:  # noqa: F811
    """On a live source: the words of the start, then others, without a stop."""
    asked = ["--labels", "a hand,a card", "--model", SMALL_CLIP, "--weights", str(small_clip.file), "--device", "cpu"]
    arguments = demo_arguments(asked)
    others = loader_of_others(arguments)
    with Page(lambda: others(SMALL_CLIP, ["a hand", "a card"]), {"feed": served}, load_other=others) as page:
        tab = Tab(browser, page.url)
        tab.wait(f"{SHOWN.format('bars')}.includes('a hand')")
        tab.page.click("#tuning summary")
        tab.page.fill("#words", "the king of hearts, <b>nobody</b>, ein Bär")
        tab.page.click("#ask-words")
        tab.wait(f"{SHOWN.format('bars')}.includes('the king of hearts')")
        tab.changes("bars")
        assert "<b>nobody</b>" in tab.text("bars") and "ein Bär" in tab.text("bars") and tab.text("random") == ""
        tab.page.fill("#words", "one")
        tab.page.click("#ask-words")
        tab.wait(f"{SHOWN.format('message')}.includes('give 2 to 200 words')")
        tab.moves()
        assert tab.errors == []
        tab.page.close()


class OfUnknownLength(Through):
    """A recording that does not say how long it is, as large ones of some kinds."""

    def __init__(self, uri: Path | str) -> None:
        super().__init__(open_source(uri))
        self.span_us = None

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        return items


def test_a_recording_of_unknown_length_has_a_rolling_timeline(browser, small_recording: Path) -> None:  # noqa: F811
    with Page(FakeRecognizer, {"it": small_recording}, settings=Settings(opened=OfUnknownLength)) as page:
        tab = Tab(browser, page.url)
        tab.moves()
        sought: list[str] = []
        tab.page.on("request", lambda asked: asked.url.endswith("/seek") and sought.append(asked.url))
        tab.page.click("#timeline", position={"x": 300, "y": 20})
        tab.page.wait_for_timeout(300)
        tab.page.close()
    assert sought == [] and tab.errors == []
