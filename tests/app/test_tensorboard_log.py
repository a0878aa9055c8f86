"""What training notes for TensorBoard is what it reads."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from app.tensorboard_log import TensorBoardLog

pytest.importorskip("tensorboard")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_reads_what_was_noted(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path / "logs")
    for step in range(4):
        log.add(step, {"loss": 1.0 / (step + 1), "val/accuracy": 0.5})
    log.close()
    log.close()
    assert read(tmp_path / "logs") == {
        "loss": [(k, pytest.approx(1 / (k + 1))) for k in range(4)],
        "val/accuracy": [(k, 0.5) for k in range(4)],
    }


def test_a_full_disk_is_told_by_name_and_leaves_no_half_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def __init__(self, path: Path, mode: str, buffering: int) -> None:
            super().__init__(path, mode)

        def write(self, data: Any) -> int:
            if self.tell() > 300:
                super().write(data[:7])
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr("app.tensorboard_log.open", Full, raising=False)
    log = TensorBoardLog(tmp_path)
    with pytest.raises(OSError, match="No space left") as full:
        for step in range(100):
            log.add(step, {"loss": 0.25})
    log.close()
    assert full.value.filename == str(log.path)
    kept = read(tmp_path)["loss"]
    assert kept == [(k, 0.25) for k in range(len(kept))] and len(kept) > 2
