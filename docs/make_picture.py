"""Takes docs/page.png, the picture of the page in README.md: the bundled recording with the bundled model.

    python docs/make_picture.py

Needs the test extra (Playwright) and Chromium on the PATH.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from app.page import Page
from recordings import bundled
from velora import load_recognizer

SIZE = {"width": 1440, "height": 900}
AT_S = 10.2  # into the recording
POSITION = "parseFloat(document.querySelectorAll('#status dd')[1]?.textContent)"


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs Chromium on the PATH")
    with Page(lambda: load_recognizer("demo"), bundled()) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport=SIZE, color_scheme="light")
        tab.goto(page.url)
        tab.wait_for_function(f"{POSITION} >= {AT_S} && !document.querySelector('.stale')")
        tab.screenshot(path=Path(__file__).with_name("page.png"))
        browser.close()


if __name__ == "__main__":
    main()
