"""Fonts that have the letters of what people write."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import ImageFont

from app import fonts

_SYSTEMS = [*Path("/usr/share/fonts").rglob("DejaVuSans.ttf")]


@pytest.fixture(autouse=True)
def afresh() -> None:
    fonts._name.cache_clear()


def test_plain_letters_need_no_font_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "shutil", None)  # not asked
    assert fonts.font_for("walk 90 %", 20).getname() == ImageFont.load_default(20).getname()  # type: ignore[union-attr]


@pytest.mark.skipif(not _SYSTEMS, reason="needs a font with more letters")
@pytest.mark.parametrize("text", ["gähnen", "привет", "Ελλάδα"])
def test_other_letters_are_drawn_by_a_font_that_has_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(stdout=str(_SYSTEMS[0]))
    monkeypatch.setattr(fonts.shutil, "which", lambda _: "fc-match")
    monkeypatch.setattr(fonts.subprocess, "run", lambda *_, **__: answer)
    font = fonts.font_for(text, 20)
    assert font.getname()[0] == "DejaVu Sans" and fonts._has(font, text)  # type: ignore[union-attr]


def test_letters_that_no_font_has_are_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_candidates", lambda _: iter(["no such font.ttf", ""]))
    font = fonts.font_for("打招呼", 20)
    assert font.getname() == ImageFont.load_default(20).getname()  # type: ignore[union-attr]
    assert font.getlength("打招呼") > 0
