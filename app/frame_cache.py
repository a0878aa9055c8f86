"""Decoded, rendered and resized frames on disk, so that training never waits for a recording to be read again.

A clip is two files: `<digest>.frames` holds its images as PNG, one after the other, and `<digest>.json` says where each
begins and what they were made of. The second is written last, so a clip is there as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from streams import Sample
from streams.files import replaced_when_whole
from velora.preprocess import resize
from velora.training.clips import Span

_FORMAT = 2
_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 1]

Spans = Sequence[Span] | Callable[[], Sequence[Span]]


@dataclass(frozen=True, eq=False)
class CachedClip:
    """A clip in the cache; see `velora.training.clips.Clip`. Cheap to hand to another process."""

    name: str
    spans: Sequence[Span]
    times: NDArray[np.int64]
    present: NDArray[np.bool_]
    breaks: NDArray[np.bool_]
    path: Path
    offsets: NDArray[np.int64]  # [2 n + 1] of the images: RGB and events of the first sample, of the second, …

    def images(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """RGB and event image of these samples, [k, 2, S, S, 3]. Raises OSError where they are gone or damaged."""
        with self.path.open("rb") as file:
            pairs = [[self._image(file, 2 * index + m) for m in range(2)] for index in indices]
        return np.asarray(pairs, np.uint8)

    def _image(self, file: Any, k: int) -> NDArray[np.uint8]:
        image = cv2.imdecode(np.frombuffer(self._read(file, k), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise self._damaged()
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)

    def _read(self, file: Any, k: int) -> bytes:
        file.seek(int(self.offsets[k]))
        size = int(self.offsets[k + 1] - self.offsets[k])
        data: bytes = file.read(size)
        if len(data) < max(1, size):
            raise self._damaged()
        return data

    def _damaged(self) -> OSError:
        self.path.with_suffix(".json").unlink(missing_ok=True)  # without it the clip is not in the cache
        return OSError(errno.EIO, "is damaged; the same command makes it anew", str(self.path))


@dataclass(frozen=True)
class FrameCache:
    """A folder of clips, of images of one size, rendered in one way."""

    folder: Path
    size: int
    rendering: Mapping[str, Any]

    def clip(
        self,
        name: str,
        fingerprint: Mapping[str, Any],
        samples: Callable[[], Iterable[Sample]],
        spans: Spans,
    ) -> CachedClip:
        """A clip, from the cache if it holds it for this `fingerprint` of its source, else made of `samples`.

        What it shows is given with every look, so that it can be corrected, or is worked out once and kept.
        Raises ValueError for a source without a single sample, and whatever reading it raises.
        """
        return self.find(name, fingerprint, spans) or self._make(name, fingerprint, samples, spans)

    def find(self, name: str, fingerprint: Mapping[str, Any], spans: Spans) -> CachedClip | None:
        """A clip that is in the cache; None where it is not, or is damaged."""
        key = self._key(fingerprint)
        note, frames = self._paths(key)
        try:
            stored = json.loads(note.read_text(encoding="utf-8"))
            offsets = np.array(stored["offsets"], np.int64)
            times, present = np.array(stored["times"], np.int64), np.array(stored["present"], bool)
            breaks = np.array(stored["breaks"], bool)
            count = len(offsets) // 2
            shapes = [array.shape for array in (offsets, times, present, breaks)]
            whole = shapes == [(2 * count + 1,), (count, 2), (count, 2), (count,)] and stored["key"] == key
            whole = whole and frames.stat().st_size == offsets[-1]
            own = [Span(*row) for row in stored["spans"]] if callable(spans) else spans
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return None
        return CachedClip(name, own, times, present, breaks, frames, offsets) if whole else None

    def _make(
        self,
        name: str,
        fingerprint: Mapping[str, Any],
        samples: Callable[[], Iterable[Sample]],
        spans: Spans,
    ) -> CachedClip:
        key = self._key(fingerprint)
        note, frames = self._paths(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        offsets, rows = [0], list[tuple[int, int, bool, bool, bool]]()
        with replaced_when_whole(frames) as part, part.open("wb") as file:
            for sample in samples():
                for png in self._encoded(sample):
                    offsets.append(offsets[-1] + file.write(png))
                rows.append(
                    (sample.t_start_us, sample.t_end_us, sample.has_rgb, sample.has_events, sample.discontinuity)
                )
        if not rows:
            frames.unlink()
            raise ValueError("it holds no frames and no events")
        stored = {
            "key": key,
            "spans": [dataclasses.astuple(span) for span in spans()] if callable(spans) else [],
            "offsets": offsets,
            "times": [row[:2] for row in rows],
            "present": [row[2:4] for row in rows],
            "breaks": [row[4] for row in rows],
        }
        with replaced_when_whole(note) as part:
            part.write_text(json.dumps(stored), encoding="utf-8")
        found = self.find(name, fingerprint, spans)
        assert found is not None
        return found

    def _encoded(self, sample: Sample) -> Iterator[bytes]:
        for image in resize([sample.rgb, sample.event_image], self.size).permute(0, 2, 3, 1).numpy():
            grey = (image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()
            pixels = image[..., 0] if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            yield cv2.imencode(".png", np.ascontiguousarray(pixels), _FAST)[1].tobytes()

    def _key(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
        key = {"format": _FORMAT, "size": self.size, "rendering": dict(self.rendering), "source": dict(fingerprint)}
        parsed: dict[str, Any] = json.loads(json.dumps(key))
        return parsed

    def _paths(self, key: Mapping[str, Any]) -> tuple[Path, Path]:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        return self.folder / f"{digest}.json", self.folder / f"{digest}.frames"
