"""Fixtures that several tests share. Tests of real recordings skip where those are not at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, RgbFrame, write_aedat4
from streams.items import Events

# Before torch is imported: its threads would wait by spinning, which on a busy machine takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REAL = Path(os.environ.get("VELORA_REAL_RECORDINGS", Path(__file__).parents[2] / "shared" / "recordings"))
REAL_NAMES = ("cuke_davis346", "static_davis346", "frames_only", "empty", "one_timestamp")


def random_events(n: int, start_us: int, end_us: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> Events:
    """`n` events spread evenly at random over [start, end) and the sensor, in order of time."""
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(start_us, end_us, n))
    events["x"], events["y"] = rng.integers(0, size[0], n), rng.integers(0, size[1], n)
    events["p"] = rng.random(n) < 0.5
    return events


def moving_square(
    frames: int, size: tuple[int, int] = (64, 48), period_us: int = 33_333
) -> Iterator[EventPacket | RgbFrame]:
    """A bright square that walks over a dark ground, with events at its edges: items in order of their end."""
    width, height = size
    for i in range(frames):
        start = 1_000_000 + i * period_us
        yield EventPacket(start, start + period_us, random_events(200, start, start + period_us, size, seed=i))
        image = np.full((height, width, 3), 30, np.uint8)
        x = (3 * i) % (width - 12)
        image[10:30, x : x + 12] = (240, 200, 160)
        yield RgbFrame(start + 5_000, start + 15_000, image)


@pytest.fixture(scope="session")
def real_recording() -> Callable[[str], Path]:
    """The path of a real camera recording by name; skips where the recordings are not at hand."""

    def find(name: str) -> Path:
        path = REAL / f"{name}.aedat4"
        if not path.exists():
            pytest.skip(f"needs the real recording {path.name}; set VELORA_REAL_RECORDINGS to its folder")
        return path

    return find


@pytest.fixture(scope="session")
def small_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a moving square, 64 x 48 at 30 fps."""
    path = tmp_path_factory.mktemp("recordings") / "square.aedat4"
    with write_aedat4(path, (64, 48), (64, 48)) as writer:
        for item in moving_square(60):
            writer.write(item)
    return path
