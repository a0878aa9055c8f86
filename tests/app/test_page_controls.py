"""Each control of the page once, in a real browser, on the bundled recording."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.page import Page
from tests.app.fakes import FakeRecognizer
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser, open_tab, page, tab  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")

POSITION = "parseFloat(document.querySelectorAll('#status dd')[1].textContent)"
VISIBLE = (
    "[...document.querySelectorAll('#stage figure')].filter(f => f.offsetWidth > 0).map(f => f.dataset.pane).join()"
)
COLOURS = """name => {
  const canvas = document.querySelector(`figure[data-pane=${name}] canvas`);
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (const k of [0, 1, 2]) sum[k] += data[i + k];
  return [canvas.width, canvas.height, ...sum.map((s) => s / (data.length / 4))];
}"""


def test_panes_are_shown_side_by_side_or_alone(tab: Tab) -> None:  # noqa: F811
    assert tab.page.evaluate(VISIBLE) == "rgb,events,motion"
    width, height, red, green, blue = tab.page.evaluate(COLOURS, "events")
    assert (width, height) == (346, 260) and min(red, green, blue) > 200  # mostly white
    tab.page.click("[data-show=blend]")
    assert tab.page.evaluate(VISIBLE) == "rgb,events,motion,blend"
    tab.page.click("[data-show=rgb]")
    assert tab.page.evaluate(VISIBLE) == "events,motion,blend"
    tab.wait(f"({COLOURS})('blend')[0] === 346")
    tab.page.keyboard.press("2")
    assert tab.page.evaluate(VISIBLE) == "events"
    tab.moves()
    tab.page.keyboard.press("2")
    assert tab.page.evaluate(VISIBLE) == "rgb,events,motion"


def test_a_paused_picture_appears_on_a_pane_that_is_opened(tab: Tab) -> None:  # noqa: F811
    tab.page.keyboard.press("2")
    tab.page.click("#play")
    tab.stands()
    tab.page.keyboard.press("3")
    tab.wait(f"({COLOURS})('motion')[0] === 346")


def test_palettes_and_opacity_change_what_is_seen(tab: Tab) -> None:  # noqa: F811
    tab.page.keyboard.press("4")
    for name in ("safe", "dark", "grey", ""):
        tab.page.select_option("#palette", name)
        shown = tab.page.evaluate("document.querySelector('figure[data-pane=blend] .over').style.filter")
        assert shown == (f'url("#palette-{name}")' if name else "")
    tab.page.fill("#opacity", "30")
    assert tab.page.evaluate("document.querySelector('canvas.over').style.opacity") == "0.3"


def test_the_timeline_seeks(tab: Tab) -> None:  # noqa: F811
    tab.page.click("#play")
    tab.stands()
    box = tab.page.locator("#timeline").bounding_box()
    tab.page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 20)
    tab.wait(f"Math.abs({POSITION} - 10.5) < 0.15")  # of 14 s
    tab.wait("document.querySelector('#bars .name').textContent === '9'")  # whose label is there at once
    tab.page.mouse.move(box["x"] + 2, box["y"] + 20)
    tab.wait(f"{SHOWN.format('tip')}.includes('Mev/s')")


def test_steps_and_their_keys(tab: Tab) -> None:  # noqa: F811
    tab.wait(f"{POSITION} > 1")
    tab.page.click("#forward")
    tab.wait(f"{SHOWN.format('play')} === 'Play'")
    tab.stands()
    before = tab.text("clock")
    tab.page.click("#back")
    tab.wait(f"{SHOWN.format('clock')} < '{before}'")
    tab.page.keyboard.press("ArrowRight")
    tab.wait(f"{SHOWN.format('clock')} === '{before}'")
    tab.page.keyboard.press("Shift+ArrowRight")
    tab.wait(f"{POSITION} > {float(before[2:6]) + 0.8}")


def test_speed_and_loop(tab: Tab) -> None:  # noqa: F811
    tab.page.select_option("#speed", "0.25")
    tab.wait("parseFloat(document.querySelectorAll('#status dd')[2].textContent) < 12")  # frames a second
    tab.page.uncheck("#loop")
    tab.page.select_option("#speed", "5")
    tab.wait(f"{POSITION} > 13.8")
    tab.page.wait_for_timeout(500)
    assert float(tab.page.evaluate(POSITION)) > 13.8


def test_stride_and_noise(tab: Tab) -> None:  # noqa: F811
    tab.page.click("#tuning summary")
    tab.page.fill("#stride", "2")
    tab.page.keyboard.press("Tab")
    tab.wait("/every [2-9]/.test(document.querySelectorAll('#status dd')[8].textContent)")
    tab.page.select_option("#choice", "square")  # which is watched as the model was trained
    tab.wait("document.getElementById('stride').value === ''")
    tab.page.check("#denoise")
    tab.wait("document.querySelectorAll('#status dd')[7].title.includes('noise')")


def test_words_need_a_backbone_with_a_text_tower(tab: Tab) -> None:  # noqa: F811
    tab.page.click("#tuning summary")
    tab.page.fill("#words", "waving, walking")
    tab.page.click("#ask-words")
    tab.wait(f"{SHOWN.format('message')}.includes('no text tower')")
    tab.moves()


def test_a_snapshot_is_a_picture_with_label_and_time(tab: Tab, tmp_path: Path) -> None:  # noqa: F811
    assert tab.download(lambda: tab.page.keyboard.press("s"), tmp_path / "shot.png") == "cards.aedat4.png"
    picture = np.asarray(Image.open(tmp_path / "shot.png"))
    assert picture.shape[1] == 3 * 346 + 16 and picture.shape[0] > 260
    assert (picture[270:] < 100).any()  # there is text below


def saved_predictions(tab: Tab, folder: Path) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:  # noqa: F811
    """The predictions so far, by both buttons: rows of the CSV, objects of the JSON lines."""
    for kind in ("csv", "jsonl"):
        tab.download(lambda kind=kind: tab.page.click(f"#export-{kind}"), folder / f"out.{kind}")  # type: ignore[misc]
    rows = list(csv.DictReader((folder / "out.csv").read_text().splitlines()))
    return rows, [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_predictions_are_saved_as_csv_and_json_lines(tab: Tab, tmp_path: Path) -> None:  # noqa: F811
    tab.wait("document.querySelector('#bars .name').textContent !== ''")
    rows, lines = saved_predictions(tab, tmp_path)
    assert rows and lines and rows[0]["recording"] == "cards.aedat4"
    assert [int(row["end_us"]) for row in rows] == sorted(int(row["end_us"]) for row in rows)
    assert abs(sum(p for _, p in lines[0]["topk"]) - 1) < 0.3 and lines[0]["model"] == "demo"


def test_help_tells_the_keys(tab: Tab) -> None:  # noqa: F811
    tab.page.keyboard.press("?")
    assert tab.page.locator("#help").is_visible() and "snapshot" in tab.text("help")
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#help").is_visible()
    tab.page.click("#ask")
    assert tab.page.locator("#help").is_visible()


def test_another_model_is_swapped_in(browser, small_recording: Path) -> None:  # noqa: F811
    class Other(FakeRecognizer):
        name, random_parts = "other", ()

    def load_other(name: str, words: object) -> Other:
        if name != "other":
            raise ValueError(f"{name} cannot be used")
        return Other()

    models = {"other": "other"}
    with Page(
        lambda: FakeRecognizer(),  # type: ignore[arg-type,return-value]
        {"square": small_recording},
        load_other=load_other,  # type: ignore[arg-type]
        models=lambda: models,
    ) as own:
        shown = Tab(browser, own.url)
        shown.wait(f"{SHOWN.format('random')} !== ''")
        assert shown.page.evaluate("[...document.getElementById('model').options].map(o => o.value)") == [
            "fake",
            "other",
        ]
        shown.page.select_option("#model", "other")
        shown.wait(f"{SHOWN.format('random')} === ''")
        shown.moves()
        models["newly taught"] = "elsewhere"
        shown.wait("[...document.getElementById('model').options].some(o => o.value === 'newly taught')")
        shown.page.select_option("#model", "newly taught")
        shown.wait(f"{SHOWN.format('message')}.includes('cannot be used')")
        shown.wait("document.getElementById('model').value === 'other'")  # the one in use
        assert shown.errors == []
        shown.page.close()


@pytest.mark.parametrize("size", [(390, 844), (1440, 900), (1920, 1080)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_out_of_the_page(browser, page: Page, size: tuple[int, int], scheme: str) -> None:  # noqa: F811
    shown = Tab(browser, page.url, size, scheme)
    shown.moves()
    assert shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = shown.page.evaluate(
        "[...document.querySelectorAll('#view :is(button, select, input)')].filter(n => n.offsetWidth && "
        "!(n.textContent.trim() || n.ariaLabel || n.labels?.length)).map(n => n.outerHTML)"
    )
    assert unnamed == [] and shown.errors == []
    shown.page.close()


def test_a_picture_of_a_tab_is_kept_for_the_next_one(open_tab: Callable[[], Tab]) -> None:  # noqa: F811
    first = open_tab()
    first.page.click("[data-show=blend]")
    first.page.reload()
    first.wait("document.getElementById('strip')?.naturalWidth > 0")
    first.errors.clear()  # of the page that went: its token is none any more
    assert first.page.evaluate(VISIBLE).endswith("blend")


@pytest.mark.timing
def test_a_slow_browser_gets_fewer_pictures_and_none_that_are_old(tab: Tab, page: Page) -> None:  # noqa: F811
    tab.page.context.new_cdp_session(tab.page).send("Emulation.setCPUThrottlingRate", {"rate": 6})
    tab.page.wait_for_timeout(4_000)
    (viewer,) = page.viewers.counted().values()
    _, p95 = viewer.state()["paint_ms"]
    assert p95 < 1_500


CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map((v) => v / 255).map((v) =>
      v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return /rgba\\(.*, 0\\)/.test(own) && node.parentElement ? ground(node.parentElement) : own;
  };
  return [...document.querySelectorAll("#view dt, #view figcaption, #view label, #label span")]
    .filter((node) => node.offsetWidth && node.textContent.trim())
    .map((node) => [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a))
    .map(([most, least]) => (most + 0.05) / (least + 0.05));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_words_stand_out_as_wcag_asks(browser: Any, page: Page, scheme: str) -> None:  # noqa: F811
    shown = Tab(browser, page.url, scheme=scheme)
    ratios = shown.page.evaluate(CONTRAST)
    assert len(ratios) > 10 and min(ratios) >= 4.5
    shown.page.close()
