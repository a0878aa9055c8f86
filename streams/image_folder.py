"""A clip of images as HARDVS and PokerEvent have them: `CLIP/CLIP_aps/00000005.png` and `CLIP/CLIP_dvs/00000005.png`.

    with open_source("hardvs:HARDVS/rgb/action_001/dvSave-2021_09_30_11_40_43") as source: ...

The events are pictures already, rendered for the exposure of the RGB image of the same number, which says when both
were taken, at 30 a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from PIL import Image as Pictures

from streams.errors import RecordingError
from streams.items import EventImage, Image, Item, RgbFrame
from streams.source import DEFAULT_PERIOD_US, Source

_EXTENSIONS = (".png", ".jpg", ".jpeg")
_MOST_PIXELS = 1 << 24  # as in AEDAT 4
_MOST_BYTES = 1 << 27  # of a file
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xae\x42\x60\x82"
_SCAN = b"\xff\xda"
_HOW = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_MOST_SCANS = 100  # of a JPEG: progressive ones have about ten


class ImageFolderSource(Source):
    """RGB and event images of one clip. Raises RecordingError where there are none; reading, for a damaged one."""

    format = "folder of images"
    schemes = ("hardvs",)

    @classmethod
    def reads(cls, head: bytes, path: Path) -> bool:
        return path.is_dir() and all(_folder(path, kind).is_dir() for kind in ("aps", "dvs"))

    def __init__(self, address: str | Path) -> None:
        super().__init__()
        self.path = Path(str(address).removeprefix("hardvs:"))
        self.name = self.path.name
        self._pairs = image_pairs(self.path)
        if not self._pairs:
            raise RecordingError(f"{self.path}: no images in {self.name}_aps and {self.name}_dvs; name a clip's folder")
        first = next(iter(self._pairs.values()))
        self.frame_size, self.event_size = (_size(picture) for picture in first)
        numbers = list(self._pairs)
        steps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
        self.sample_period_us = round(median(steps or [1]) * DEFAULT_PERIOD_US)
        self.span_us = span_of(self._pairs)

    def close(self) -> None:
        """Nothing is open between two images."""

    def __iter__(self) -> Iterator[Item]:
        return self._items(0)

    def read(self, from_us: int) -> Iterator[Item]:
        return self._items(from_us)

    def _items(self, from_us: int) -> Iterator[Item]:
        for number, (rgb, events) in self._pairs.items():
            start_us, end_us = number * DEFAULT_PERIOD_US, (number + 1) * DEFAULT_PERIOD_US
            if end_us > from_us:
                yield EventImage(start_us, end_us, read_picture(events, self.event_size))
                yield RgbFrame(start_us, end_us, read_picture(rgb, self.frame_size))


def image_pairs(clip: Path) -> dict[int, tuple[Path, Path]]:
    """The RGB and event images of a clip's folder, by number, in order; of those that have both."""
    rgb, events = (_numbered(_folder(clip, kind)) for kind in ("aps", "dvs"))
    return {number: (rgb[number], events[number]) for number in sorted(rgb.keys() & events.keys())}


def span_of(pairs: Mapping[int, object]) -> tuple[int, int]:
    """When the images of these numbers begin and end, microseconds."""
    return min(pairs) * DEFAULT_PERIOD_US, (max(pairs) + 1) * DEFAULT_PERIOD_US


def read_picture(path: Path, size: tuple[int, int] | None = None) -> Image:
    """A picture as uint8 [H, W, 3], RGB.

    Raises RecordingError for one that is damaged, larger than any camera's, or not of `size` (width, height).
    """
    found = _size(path)
    data = path.read_bytes()  # OpenCV does not take every name on every system
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _HOW) if _is_honest(data) else None
    if image is None:
        raise RecordingError(f"{path} is damaged: copy it again, or leave it out")
    if size is not None and found != size:
        raise RecordingError(
            f"{path} is {found[0]} x {found[1]}, the first picture {size[0]} x {size[1]}: leave it out"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _is_honest(data: bytes) -> bool:
    """Whether the parts of a PNG end within it, and those of a JPEG are not too many.

    OpenCV takes memory for what a part claims, may crash where a moving picture is damaged, and reads scans of a few
    bytes for ever.
    """
    if not data.startswith(_PNG):
        return data.count(_SCAN) <= _MOST_SCANS
    position = len(_PNG)
    while data[position + 4 : position + 8] not in (b"IEND", b"acTL", b""):
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return data[position : position + len(_PNG_END)] == _PNG_END


def _size(path: Path) -> tuple[int, int]:
    """Width and height, without reading the rest."""
    try:
        with Pictures.open(path, formats=("PNG", "JPEG")) as picture:
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise RecordingError(f"{path} is no picture that can be read ({type(error).__name__}): leave it out") from None
    if width * height > _MOST_PIXELS or path.stat().st_size > _MOST_BYTES:
        raise RecordingError(f"{path} is {width} x {height}: no camera's picture")
    return width, height


def _folder(clip: Path, kind: str) -> Path:
    return clip / f"{clip.name}_{kind}"


def _numbered(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    files = (path for path in folder.iterdir() if path.suffix.lower() in _EXTENSIONS)
    return {int(path.stem): path for path in files if re.fullmatch(r"[0-9]{1,12}", path.stem)}
