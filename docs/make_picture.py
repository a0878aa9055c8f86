"""Takes the pictures of the page: those in README.md, and with --all one of each screen, light and dark, to look at.

    python docs/make_picture.py [--all FOLDER]

Needs the test extra (Playwright) and Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

import app.page
from app.access import Access
from app.cli import main as velora
from app.school import School
from recordings import bundled
from streams.record import labels_of
from velora import load_recognizer

HERE = Path(__file__).parent
DESKTOP, LARGE, PHONE = (1440, 900), (1920, 1080), (390, 844)
AT_S = 10.2  # into the recording
POSITION = "parseFloat(document.querySelectorAll('#status dd')[1]?.textContent)"


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every screen, to this folder")
    folder = parser.parse_args().all
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs Chromium on the PATH")
    with (
        tempfile.TemporaryDirectory() as data,
        _page(Path(data)) as page,
        sync_playwright() as playwright,
    ):
        recordings = Path(data) / "recordings"
        make_scenes(recordings)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        if folder is None:
            take(browser, page.url, HERE / "page.png", DESKTOP, "light")
            take(browser, page.url, HERE / "page-teach.png", DESKTOP, "dark", teaching=True)
            take_folder(browser, page.url, HERE / "page-folder.png", DESKTOP, "light", recordings)
            return
        folder.mkdir(parents=True, exist_ok=True)
        for size in (DESKTOP, LARGE, PHONE):
            for scheme in ("light", "dark"):
                take(browser, page.url, folder / f"{size[0]}x{size[1]}-{scheme}.png", size, scheme)
                name = f"folder-{size[0]}x{size[1]}-{scheme}.png"
                take_folder(browser, page.url, folder / name, size, scheme, recordings)
        take(browser, page.url, folder / "teach.png", DESKTOP, "light", teaching=True)


def take(browser: Browser, url: str, path: Path, size: tuple[int, int], scheme: str, *, teaching: bool = False) -> None:
    """One picture, of a label that is there."""
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(url)
    tab.wait_for_function("/[1-9]/.test(document.getElementById('clock')?.textContent)")
    if teaching:
        _teach(tab)
    tab.wait_for_function(f"{POSITION} >= {AT_S} && !document.querySelector('.stale')", timeout=60_000)
    tab.screenshot(path=path)
    tab.close()
    print(path)


def _page(data: Path) -> app.page.Page:
    return app.page.Page(
        lambda: load_recognizer("demo"),
        bundled(),
        school=School(data),
        access=Access(folders=(data,)),
        models=lambda: {"demo": "demo"},
    )


def make_scenes(folder: Path) -> None:
    """A few short recordings of different scenes."""
    for number, name in enumerate(("monday/first.aedat4", "monday/second.aedat4", "tuesday/first.aedat4")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if velora(["simulate", "cards", "--out", str(path), "--seconds", "12", "--seed", str(9_000 + number)]):
            sys.exit(f"{path} could not be made")
        labels_of(path).unlink(missing_ok=True)


def take_folder(browser: Browser, url: str, path: Path, size: tuple[int, int], scheme: str, recordings: Path) -> None:
    """One picture of a labelled folder."""
    tab = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    tab.goto(url)
    tab.click("[data-view=folder]")
    tab.fill("#batch-folder", str(recordings))
    tab.click("#label-folder")
    tab.wait_for_function(
        "document.getElementById('batch-told').textContent.includes('labels are in')", timeout=300_000
    )
    tab.wait_for_function("document.querySelectorAll('#rows tr').length === 3")
    tab.evaluate("document.activeElement.blur()")
    tab.screenshot(path=path)
    tab.close()
    print(path)


def _teach(tab: Page) -> None:
    """What somebody has marked: a corrected label, and examples of two new ones."""
    tab.click("[data-show=motion]")
    tab.click("[data-show=blend]")
    _mark(tab, 0.36, 0.57, "king", "#mark")
    for start, label in ((0.12, "low"), (0.2, "low"), (0.4, "high"), (0.48, "high")):
        _mark(tab, start, start + 0.07, label, "#example")
    tab.fill("#new-name", "low or high")


def _mark(tab: Page, start: float, end: float, label: str, button: str) -> None:
    box = tab.locator("#timeline").bounding_box()
    assert box is not None
    tab.mouse.move(box["x"] + box["width"] * start, box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * end, box["y"] + 20, steps=4)
    tab.mouse.up()
    tab.fill("#own-label", label)
    tab.click(button)
    tab.wait_for_function("document.getElementById('mark').disabled")


if __name__ == "__main__":
    main()
