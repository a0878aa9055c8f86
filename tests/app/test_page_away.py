"""A tab that the server has forgotten, and one that nobody sees."""

from __future__ import annotations

import pytest

from app.page import Page
from tests.app.test_page import CHROMIUM, SHOWN, Tab, browser, open_tab, page, tab  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")


def test_a_tab_that_was_forgotten_goes_back_to_what_it_watched(tab: Tab, page: Page) -> None:  # noqa: F811
    tab.page.select_option("#choice", "square")
    tab.wait(f"{SHOWN.format('clock')}.includes('/ 0:02')")
    tab.page.click("#play")
    tab.stands()
    before = tab.text("clock")
    page.viewers.close()  # as those are that have slept for a minute
    tab.wait("document.getElementById('strip')?.naturalWidth > 0 && window.loads === undefined")
    tab.errors.clear()  # 404
    tab.wait(f"{SHOWN.format('clock')} === {before!r} && document.getElementById('choice').value === 'square'")
    tab.wait(f"{SHOWN.format('play')} === 'Play'")


def test_a_tab_that_nobody_sees_asks_for_no_pictures(tab: Tab) -> None:  # noqa: F811
    asked: list[str] = []
    tab.page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
    tab.stands()
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.page.wait_for_timeout(1500)
    assert 2 <= len(asked) <= 8 and all("panes=&" in url for url in asked)
    tab.page.evaluate("delete document.hidden")
    tab.moves()
