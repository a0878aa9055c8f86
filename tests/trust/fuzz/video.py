"""Video files as the fuzzer has them: AVI and MP4 of OpenCV's, their boxes harmed by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.trust.fuzz.harness import Case, Format
from tests.trust.fuzz.mutations import ANY_BYTES, of_files, tagged
from tests.trust.fuzz.routes import decoder, info, label, replay

_FRAMES, _SIZE = 12, (64, 48)
_KINDS = (("case.avi", "MJPG"), ("case.mp4", "mp4v"), ("case.avi", "XVID"), ("case.mkv", "MJPG"))
_AVI = (b"RIFF", b"avih", b"strh", b"strf", b"idx1", b"LIST", b"00dc")
_MP4 = (b"ftyp", b"mvhd", b"tkhd", b"mdhd", b"stsd", b"stts", b"stsc", b"stsz", b"stco", b"esds", b"mp4v", b"moov")


def seeds(folder: Path) -> Sequence[Case]:
    """A square that moves, in some containers and codecs."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_made(folder / name, codec) for name, codec in _KINDS]


def _made(path: Path, codec: str) -> Case:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 30, _SIZE)
    assert writer.isOpened(), f"OpenCV writes no {codec} in {path.suffix}"
    for number in range(_FRAMES):
        image = np.full((_SIZE[1], _SIZE[0], 3), 60, np.uint8)
        image[10:30, number : number + 20] = (0, 128, 255)
        writer.write(image)
    writer.release()
    return Case({path.name: path.read_bytes()}, path.name)


VIDEO = Format(
    "video",
    seeds,
    of_files({**ANY_BYTES, "boxes lie": tagged(_AVI + _MP4, 12), "what is in them lies": tagged(_AVI + _MP4, 80)}),
    (decoder, replay, info, label),
    few=100,
)
