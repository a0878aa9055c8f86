"""The switch that records: what was there is not lost, and labels belong to their recording."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from app.recorder import Recorder
from streams import RecordingError, open_source
from streams.record import Tee


def prediction(t_end_us: int) -> SimpleNamespace:
    return SimpleNamespace(t_end_us=t_end_us, label="A", confidence=0.9, unsure=False)


def test_a_recording_that_is_refused_leaves_all_as_it_was(small_recording: Path, tmp_path: Path) -> None:
    own = tmp_path / "a.aedat4"
    own.write_bytes(small_recording.read_bytes())
    labels = tmp_path / "a.labels.csv"
    labels.write_text("mine")
    with Tee(open_source(own)) as tee:
        with pytest.raises(RecordingError, match="is what is to be recorded"):
            Recorder(tee).start(own, replace=True)
        assert labels.read_text() == "mine" and own.read_bytes() == small_recording.read_bytes()
        labels.rename(tmp_path / "b.labels.csv")
        with pytest.raises(RecordingError, match="b.labels.csv is there already"):
            Recorder(tee).start(tmp_path / "b.aedat4")
        assert not (tmp_path / "b.aedat4").exists()


def test_labels_of_a_recording_that_is_replaced_go_with_it(small_recording: Path, tmp_path: Path) -> None:
    for name in ("b.aedat4", "b.labels.csv"):
        (tmp_path / name).write_text("old")
    with Tee(open_source(small_recording)) as tee:
        recorder = Recorder(tee)
        recorder.start(tmp_path / "b.aedat4", replace=True, labels=False)
        list(tee)
        assert recorder.stop()[0].startswith(str(tmp_path / "b.aedat4"))
    assert not (tmp_path / "b.labels.csv").exists()


def test_labels_after_the_end_are_nobodys(small_recording: Path, tmp_path: Path) -> None:
    with Tee(open_source(small_recording)) as tee:
        recorder = Recorder(tee)
        recorder.start(tmp_path / "b.aedat4")
        recorder.on_prediction(prediction(1_000_000))
        recorder.on_prediction(prediction(1_100_000))
        recorder.stop()
        recorder.on_prediction(prediction(1_200_000))
        assert recorder.stop() == []
    rows = (tmp_path / "b.labels.csv").read_text().splitlines()
    assert rows[1:] == ["b.aedat4,1000000,1100000,A,0.9000"]


def test_what_a_slow_disk_cost_is_a_failure(small_recording: Path, tmp_path: Path) -> None:
    with Tee(open_source(small_recording)) as tee:
        recorder = Recorder(tee)
        recorder.start(tmp_path / "b.aedat4")
        list(tee)
        assert tee.recorded is not None
        tee.recorded.left_out = 3
        assert "3 packets and frames are missing" in recorder.stop()[0] and recorder.failed
