"""Where the clips of a data set come from: what reads them, and what tells whether they have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from streams import RenderConfig, Sample, open_source, synchronize
from streams.files import file_fingerprint
from streams.image_folder import ImageFolderSource, image_pairs
from streams.items import SAMPLES_VERSION
from streams.simulation.scenes import SceneSource, scene


class Origin(Protocol):
    """Something that a clip is read from; it can be handed to another process."""

    def fingerprint(self) -> dict[str, Any]:
        """What changes when the clip does. Raises OSError where it is not there."""

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        """Its samples. Raises RecordingError, OSError or ValueError, one line that names the file."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A file that `open_source` reads."""

    path: Path

    def fingerprint(self) -> dict[str, Any]:
        return {**file_fingerprint(self.path), "samples": SAMPLES_VERSION}

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        with open_source(self.path) as source:
            yield from synchronize(source, render=RenderConfig(**rendering))


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulated scene of cards."""

    split: str
    number: int
    light: str | None
    speed: str | None

    def fingerprint(self) -> dict[str, Any]:
        own = scene(self.split, self.number, light=self.light, speed=self.speed)
        return {"scene": own.name, "version": own.version}

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        own = scene(self.split, self.number, light=self.light, speed=self.speed)
        yield from synchronize(SceneSource(own), render=RenderConfig(**rendering))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A clip's folder of RGB and event images that somebody else rendered, as HARDVS and PokerEvent have them."""

    path: Path

    def fingerprint(self) -> dict[str, Any]:
        files = [path for pair in image_pairs(self.path).values() for path in pair]
        if not files:
            raise IndexError
        states = [(str(path.resolve()), path.stat()) for path in files]
        listed = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
        return {"files": hashlib.sha256(listed.encode()).hexdigest()}

    def samples(self, rendering: Mapping[str, Any]) -> Iterator[Sample]:
        with ImageFolderSource(self.path) as source:
            yield from synchronize(source)
