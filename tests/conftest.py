"""Fixtures that several tests share. Tests of real recordings skip where those are not at hand."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams import EVENT_DTYPE, EventPacket, RgbFrame, write_aedat4
from streams.aedat4 import decode_events, decode_frame
from streams.items import Events

# Before torch is imported: its threads would wait by spinning, which on a busy machine takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Background jobs of scripts ignore Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much of what goes wrong is tried (tests/trust), and where that is told."""
    parser.addoption("--nightly", action="store_true", help="all cases of tests/trust, which takes hours")
    parser.addoption("--reliability", metavar="NAME", help="the table of docs/RELIABILITY.md to write")


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


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """How often each packet of a recording is decoded from now on, by its kind and the time at which it begins."""
    counted: Counter[tuple[str, int]] = Counter()

    def events(data: bytes) -> Events:
        found = decode_events(data)
        counted["events", int(found["t"][0])] += 1
        return found

    def frame(data: bytes, sensor: tuple[int, int] | None) -> RgbFrame:
        found = decode_frame(data, sensor)
        counted["frame", found.t_start_us] += 1
        return found

    monkeypatch.setattr("streams.aedat4_reader.decode_events", events)
    monkeypatch.setattr("streams.aedat4_reader.decode_frame", frame)
    return counted


@pytest.fixture
def make_recording(tmp_path: Path) -> Callable[..., Path]:
    """Writes items to a recording."""

    def make(items: Iterable[EventPacket | RgbFrame], frame_size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / "made.aedat4"
        with write_aedat4(path, (64, 48), frame_size) as writer:
            for item in items:
                writer.write(item)
        return path

    return make


SMALL_CLIP = "small-clip"
_CLIP_CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@dataclass(frozen=True)
class SmallClip:
    """A CLIP of open_clip's with random weights, known to it and to us as SMALL_CLIP, and the file of its weights."""

    model: Any
    file: Path


@pytest.fixture(scope="session")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallClip]:
    import open_clip
    import torch
    from safetensors.torch import save_file

    from velora.backbones import BACKBONES, Backbone

    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{SMALL_CLIP}.json").write_text(json.dumps(_CLIP_CONFIG))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.CLIP(**open_clip.get_model_config(SMALL_CLIP)).eval()
    for parameter in model.parameters():  # features that differ from picture to picture, and from word to word
        if parameter.ndim > 1:
            parameter.data *= 2
    model.logit_scale.data.fill_(3.5)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "clip.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, SMALL_CLIP, Backbone(SMALL_CLIP, 64, 3, 2, 8, 32, 16, True, "somebody/small-clip"))
        yield SmallClip(model, folder / "clip.safetensors")
