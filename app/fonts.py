"""A font for a text: Pillow's own, or for letters that it lacks one of the system's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_NOTHING = "\uffff"  # a letter that no font has: what is drawn for it is drawn for all that are missing
_SIZE = 20.0  # to look at letters
_TIMEOUT_S = 5
#: Of systems without fontconfig, in Windows and macOS.
_KNOWN = ("Arial Unicode.ttf", "segoeui.ttf", "arial.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "PingFang.ttc")


def font_for(text: str, size: float) -> Font:
    """A font with all letters of a text; Pillow's own where there is none."""
    name = _name("".join(sorted(set(text))))
    return ImageFont.load_default(size) if name is None else ImageFont.truetype(name, size)


@lru_cache(maxsize=256)
def _name(letters: str) -> str | None:
    if _has(ImageFont.load_default(_SIZE), letters):
        return None
    return next((name for name in _candidates(letters) if _can(name, letters)), None)


def _candidates(letters: str) -> Iterator[str]:
    matcher = shutil.which("fc-match")
    if matcher is not None:
        wanted = " ".join(f"{ord(letter):x}" for letter in letters)
        asked = [matcher, "--format=%{file}", f"sans:charset={wanted}"]
        with suppress(OSError, subprocess.TimeoutExpired):
            yield subprocess.run(asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False).stdout
    yield from _KNOWN


def _can(name: str, letters: str) -> bool:
    try:
        return _has(ImageFont.truetype(name, _SIZE), letters)
    except OSError:
        return False


def _has(font: Font, letters: str) -> bool:
    missing = _drawn(font, _NOTHING)
    return all(letter.isspace() or _drawn(font, letter) != missing for letter in letters)


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
