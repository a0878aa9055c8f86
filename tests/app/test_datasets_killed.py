"""Data sets of which a clip takes the process that reads it down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from app import datasets
from app.datasets import Entry, open_dataset
from tests.app.test_datasets import SIZE, recordings


def test_a_clip_that_takes_its_process_down_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool_in_this_process: None
) -> None:
    made = datasets._made

    def killed(entries: Sequence[Entry], missing: Sequence[int], *more: Any) -> Iterator[Any]:
        for number, found in made(entries, missing, *more):
            if entries[number].name == "train/clip_3.aedat4":
                raise BrokenProcessPool("killed")
            yield number, found

    monkeypatch.setattr(datasets, "_made", killed)
    for split in ("train", "val", "test"):
        recordings(tmp_path / "set" / split, 30 if split == "train" else 3)
    found = open_dataset(str(tmp_path / "set"), "train", tmp_path / "cache", size=SIZE)
    assert len(found.clips) == 29
    assert found.skipped == ("train/clip_3.aedat4: reading it takes its process down: leave it out, or make room",)


def test_a_cache_that_cannot_be_is_no_clips_fault(tmp_path: Path, pool_in_this_process: None) -> None:
    recordings(tmp_path / "set", 4)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        open_dataset(str(tmp_path / "set"), "train", tmp_path / "file" / "cache", size=SIZE)
    assert str(tmp_path / "file") in str(caught.value)
