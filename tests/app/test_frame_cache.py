"""The cache of frames: exactly what was resized, whole or not there, and never older than its source."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.frame_cache import FrameCache
from streams import Sample
from streams.files import file_fingerprint
from streams.items import no_events
from velora.preprocess import resize
from velora.training.clips import Span

SIZE = 24
SPANS = (Span(0, 100, 0),)


def samples(count: int = 5, *, grey: bool = False, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        rgb, events = rng.integers(0, 256, (2, 30, 40, 3), np.uint8)
        if grey:
            rgb = np.repeat(rgb[..., :1], 3, axis=2)
        made.append(Sample(k, 10 * k, 10 * k + 7, rgb, events, no_events(), k != 2, k != 3, k in (0, 4)))
    return made


def cache_in(folder: Path, size: int = SIZE) -> FrameCache:
    return FrameCache(folder, size, {"max_window_us": 5})


@pytest.mark.parametrize("grey", [False, True])
def test_what_comes_back_is_what_was_resized(tmp_path: Path, grey: bool) -> None:
    own = samples(grey=grey)
    clip = cache_in(tmp_path).clip("a", {"is": 1}, lambda: own, SPANS)
    found = clip.images([4, 0, 0])
    for image, sample in zip(found, (own[4], own[0], own[0]), strict=True):
        expected = resize([sample.rgb, sample.event_image], SIZE).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(image, expected)
    assert clip.times.tolist() == [[10 * k, 10 * k + 7] for k in range(5)]
    assert clip.present[:, 0].tolist() == [True, True, False, True, True]
    assert clip.breaks.tolist() == [True, False, False, False, True]


def test_it_can_be_handed_to_another_process(tmp_path: Path) -> None:
    clip = cache_in(tmp_path).clip("a", {"is": 1}, samples, SPANS)
    data = pickle.dumps(clip)
    assert len(data) < 3000 and np.array_equal(pickle.loads(data).images([1]), clip.images([1]))


def test_grey_frames_take_less_room(tmp_path: Path) -> None:
    for name, grey in (("colour", False), ("grey", True)):
        cache_in(tmp_path / name).clip("a", {}, lambda grey=grey: samples(grey=grey), SPANS)
    colour, grey_size = (next((tmp_path / n).glob("*.frames")).stat().st_size for n in ("colour", "grey"))
    assert grey_size < 0.75 * colour


def test_it_is_read_once(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    first = cache.clip("a", {"is": 1}, samples, SPANS)

    def never() -> Iterator[Sample]:
        raise AssertionError("it is in the cache")

    again = cache.clip("a", {"is": 1}, never, (Span(0, 5, 2),))
    assert np.array_equal(again.images([3]), first.images([3])) and again.spans == (Span(0, 5, 2),)


@pytest.mark.parametrize("change", ["source", "size", "rendering"])
def test_another_source_size_or_rendering_is_another_entry(tmp_path: Path, change: str) -> None:
    cache_in(tmp_path).clip("a", {"is": 1}, samples, SPANS)
    cache, source = cache_in(tmp_path), {"is": 1}
    if change == "source":
        source = {"is": 2}
    elif change == "size":
        cache = cache_in(tmp_path, 16)
    else:
        cache = dataclasses.replace(cache, rendering={})
    assert cache.find("a", source, SPANS) is None


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def breaks_off() -> Iterator[Sample]:
        yield from samples(3)
        raise KeyboardInterrupt

    cache = cache_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.clip("a", {}, breaks_off, SPANS)
    assert not list(tmp_path.iterdir()) and cache.find("a", {}, SPANS) is None
    assert len(cache.clip("a", {}, samples, SPANS).times) == 5


@pytest.mark.parametrize("suffix", ["json", "frames"])
@pytest.mark.parametrize("damage", ["cut", "gone", "odd"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, suffix: str, damage: str) -> None:
    cache = cache_in(tmp_path)
    cache.clip("a", {}, samples, SPANS)
    (path,) = tmp_path.glob(f"*.{suffix}")
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50] if damage == "cut" else b"[1]")
    assert cache.find("a", {}, SPANS) is None
    assert len(cache.clip("a", {}, samples, SPANS).images([0, 4])) == 2


def test_a_clip_whose_frames_are_damaged_inside_is_told_of_and_then_made_again(tmp_path: Path) -> None:
    """As after a loss of power: all bytes are there, and some are none of what was written."""
    cache = cache_in(tmp_path)
    clip = cache.clip("a", {}, samples, SPANS)
    clip.path.write_bytes(bytes(clip.path.stat().st_size))
    with pytest.raises(OSError, match="makes it anew") as caught:
        clip.images([2])
    assert caught.value.filename == str(clip.path)
    assert cache.find("a", {}, SPANS) is None
    assert cache.clip("a", {}, samples, SPANS).images([2]).any()


def test_a_source_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it holds no frames and no events"):
        cache_in(tmp_path).clip("a", {}, lambda: [], SPANS)
    assert not list(tmp_path.iterdir())


def test_a_file_is_told_by_its_beginning_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_fingerprint(path)
    assert file_fingerprint(path) == first
    path.write_bytes(b"two")
    assert file_fingerprint(path) != first


@pytest.mark.parametrize("name", ["times", "present", "breaks", "offsets"])
def test_a_note_that_says_less_than_the_frames_is_none(tmp_path: Path, name: str) -> None:
    cache = cache_in(tmp_path)
    cache.clip("a", {}, samples, SPANS)
    (note,) = tmp_path.glob("*.json")
    stored = json.loads(note.read_text())
    note.write_text(json.dumps(stored | {name: stored[name][-1:]}))
    assert cache.find("a", {}, SPANS) is None


def test_a_clip_that_is_cut_off_meanwhile_is_told_of_and_then_made_again(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    clip = cache.clip("a", {}, samples, SPANS)
    os.truncate(clip.path, 0)
    with pytest.raises(OSError, match="makes it anew"):
        clip.images([2])
    assert cache.find("a", {}, SPANS) is None
