"""What is known of a video of a recording: what it was made of, and where its pictures are in the recording's time.

It stands in NAME.video.json beside NAME.mp4, and in the comment of the MP4 itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, TypeVar

from streams.files import replaced_when_whole, small_file

_LARGEST = 1 << 22  # bytes of what is told of a video
_Place = TypeVar("_Place", bound=PurePath)
VERSION = 1  # of how videos are drawn; another one, and all are made anew


@dataclass(frozen=True, slots=True)
class Clock:
    """Picture k shows the recording from `origin_us` + k / `fps` on."""

    origin_us: int  # on the recording's clock
    fps: Fraction
    pictures: int | None = None  # None: not known without reading all of it

    @property
    def seconds(self) -> float:
        """How long it is; without end where that is not known."""
        return float("inf") if self.pictures is None else float(self.pictures / self.fps)

    @property
    def rate(self) -> int | float:
        """Pictures a second, as a number for JSON."""
        return int(self.fps) if self.fps.denominator == 1 else round(float(self.fps), 6)

    def since_origin(self, time_us: int) -> float:
        """Seconds of the video at a moment of the recording."""
        return (time_us - self.origin_us) / 1e6


@dataclass(frozen=True)
class Film:
    """A video that is there."""

    recording: str  # its name
    source: str  # its path
    clock: Clock
    width: int
    height: int
    panes: tuple[str, ...]
    made_of: Mapping[str, Any]  # what changes when it would look different: see `Look.made_of`
    remarks: tuple[str, ...] = ()


def beside(path: _Place) -> _Place:
    """Where it is told of a video."""
    return path.with_name(path.name.removesuffix(".mp4") + ".video.json")


def as_json(film: Film) -> dict[str, Any]:
    """As it is told, without what only concerns making it anew."""
    clock = film.clock
    return {
        "recording": film.recording,
        "source": film.source,
        "origin_us": clock.origin_us,
        "fps": clock.rate,
        "fps_ratio": str(clock.fps),
        "pictures": clock.pictures,
        "seconds": round(clock.seconds, 6),
        "width": film.width,
        "height": film.height,
        "panes": list(film.panes),
        "remarks": list(film.remarks),
    }


def write_film(path: Path, film: Film, nbytes: int) -> None:
    """Tell of a video of so many bytes, before it gets its name `path`. Raises OSError."""
    told = {**as_json(film), "bytes": nbytes, "made_of": dict(film.made_of)}
    with replaced_when_whole(beside(path)) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def read_film(path: Path) -> Film | None:
    """What is told of a video; None where it is not there, or is not the one that is told of."""
    try:
        told = json.loads(small_file(beside(path), _LARGEST) or b"")
        if path.stat().st_size != told["bytes"]:
            return None
        return Film(
            recording=told["recording"],
            source=told["source"],
            clock=Clock(int(told["origin_us"]), Fraction(told["fps_ratio"]), int(told["pictures"])),
            width=int(told["width"]),
            height=int(told["height"]),
            panes=tuple(told["panes"]),
            made_of=dict(told["made_of"]),
            remarks=tuple(told["remarks"]),
        )
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError, OverflowError):
        return None
