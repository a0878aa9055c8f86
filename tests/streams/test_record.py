"""Recording: what flows is what is in the file, also after a kill or on a full disk, and other readers agree."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams import EventPacket, RecordingError, RgbFrame, Source, open_source
from streams.items import Events, Item
from streams.record import LabelLog, Tee
from streams.source import Through
from tests.conftest import moving_square


def content(source: Source) -> tuple[Events, list[RgbFrame]]:
    items = list(source)
    events = [item.events for item in items if isinstance(item, EventPacket)]
    return np.concatenate(events) if events else np.empty(0), [item for item in items if isinstance(item, RgbFrame)]


def copied(source: Path, out: Path) -> Path:
    with Tee(open_source(source)) as tee:
        assert isinstance(tee, Tee)
        tee.start(out)
        for _ in tee:
            pass
        recorded = tee.stop()
    assert recorded is not None and not recorded.failure and recorded.size == out.stat().st_size
    return out


@pytest.mark.parametrize("name", ["cuke_davis346", "static_davis346", "frames_only", "one_timestamp"])
def test_a_copy_of_a_real_recording_is_equal_as_anybody_reads_it(
    real_recording: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    original = real_recording(name)
    copy = copied(original, tmp_path / "copy.aedat4")
    with open_source(original) as one, open_source(copy) as other:
        (events, frames), (same_events, same_frames) = content(one), content(other)
    assert np.array_equal(events, same_events) and len(frames) == len(same_frames)
    for frame, same in zip(frames, same_frames, strict=True):
        assert (frame.t_start_us, frame.t_end_us) == (same.t_start_us, same.t_end_us)
        assert (frame.image == same.image).all()
    code = (
        "import sys, numpy as np, dv_processing as dv\n"
        "reader = dv.io.MonoCameraRecording(sys.argv[1])\n"
        "count = frames = 0\n"
        "while reader.isEventStreamAvailable() and (batch := reader.getNextEventBatch()) is not None:\n"
        "    count += batch.size()\n"
        "while reader.isFrameStreamAvailable() and (frame := reader.getNextFrame()) is not None:\n"
        "    frames += 1\n"
        "print(count, frames)\n"
    )
    told = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == [str(len(events)), str(len(frames))], told.stderr
    aedat = pytest.importorskip("aedat")
    packets = [packet["events"] for packet in aedat.Decoder(str(copy)) if "events" in packet]
    assert sum(len(packet) for packet in packets) == len(events)


def test_a_kill_loses_next_to_nothing_and_the_file_opens(small_recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed.aedat4"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from streams import open_source\n"
        "from streams.record import Tee\n"
        "tee = Tee(open_source(sys.argv[1]))\n"
        "tee.start(Path(sys.argv[2]))\n"
        "for k, item in enumerate(tee):\n"
        "    if k == 60:\n"
        "        while tee._recording._behind.late_s:\n"
        "            time.sleep(0.001)\n"
        "        print(item.t_end_us, flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(small_recording), str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reached = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open_source(out) as source:
        ends = [item.t_end_us for item in source if isinstance(item, EventPacket | RgbFrame)]
    assert reached - max(ends) < 1_000_000 and len(ends) >= 60


class FullDisk(io.FileIO):
    """A file on a disk that has room for 100 kB: what is one too much is written by half, as disks do."""

    def __init__(self, path: Path, mode: str, buffering: int) -> None:
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100_000:
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_full_disk_ends_the_recording_and_not_the_feed(
    small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.aedat4_writer.open", FullDisk, raising=False)
    out = tmp_path / "full.aedat4"
    with Tee(open_source(small_recording)) as tee:
        assert isinstance(tee, Tee)
        tee.start(out)
        items = list(tee)
        recorded = tee.stop()
    assert recorded is not None and not tee.recording
    assert "No space left on device; make room, or choose another place" in recorded.failure
    with open_source(small_recording) as source:
        assert len(list(source)) == len(items)
    with open_source(out) as source:
        kept = list(source)
        assert not source.counts["corrupt packets skipped"]
    assert 5 < len(kept) < len(items) and recorded.size == out.stat().st_size


class SlowDisk(io.FileIO):
    """A file on a disk that blocks, from its second write on, until `goes_on` is set."""

    goes_on = threading.Event()
    blocked = threading.Event()

    def __init__(self, path: Path, mode: str, buffering: int) -> None:
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        if self.tell():
            SlowDisk.blocked.set()
            SlowDisk.goes_on.wait(60)
        return super().write(data)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> type[SlowDisk]:
    """All that is recorded is on one."""
    monkeypatch.setattr("streams.aedat4_writer.open", SlowDisk, raising=False)
    monkeypatch.setattr("streams.record.open", SlowDisk, raising=False)
    SlowDisk.goes_on.clear()
    SlowDisk.blocked.clear()
    return SlowDisk


class Feed(Through):
    """A recording that is taken for a live feed."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.live = True

    def _through(self, items: Iterator[Item]) -> Iterator[Item]:
        yield from items


def test_a_disk_that_blocks_holds_up_no_live_feed_and_nothing_is_lost(
    small_recording: Path, tmp_path: Path, slow_disk: type[SlowDisk]
) -> None:
    out = tmp_path / "slow.aedat4"
    with Tee(Feed(open_source(small_recording))) as tee:
        assert isinstance(tee, Tee)
        tee.start(out)
        items = list(tee)  # to its end, while the disk takes nothing
        assert slow_disk.blocked.wait(10) and tee.recorded is not None and tee.recorded.size == 0
        assert not tee.warning
        time.sleep(1.1)
        assert tee.warning == "the recording is 1 s behind, since the disk is slow"
        slow_disk.goes_on.set()
        recorded = tee.stop()
        assert tee.warning == ""
    assert recorded is not None and not recorded.failure and not recorded.left_out
    with open_source(out) as source:
        events, frames = content(source)
    assert len(frames) == sum(isinstance(item, RgbFrame) for item in items) and len(events) == recorded.events > 0


def test_what_a_slow_disk_has_no_time_for_is_left_out_and_told(
    small_recording: Path, tmp_path: Path, slow_disk: type[SlowDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.write_behind.MOST_BYTES", 50_000)
    out = tmp_path / "slow.aedat4"
    with Tee(Feed(open_source(small_recording))) as tee:
        assert isinstance(tee, Tee)
        tee.start(out)
        items = [item for item in tee if not isinstance(item, EventPacket) or len(item.events)]
        slow_disk.goes_on.set()
        recorded = tee.stop()
    assert recorded is not None and not recorded.failure and 5 < recorded.left_out < len(items)
    assert f"; {recorded.left_out} packets and frames are missing, since the disk was too slow" in str(recorded)
    with open_source(out) as source:
        events, frames = content(source)
        assert not source.counts["corrupt packets skipped"]
    assert (len(events), len(frames)) == (recorded.events, recorded.frames)


def test_a_recording_is_copied_whole_however_slow_the_disk(
    small_recording: Path, tmp_path: Path, slow_disk: type[SlowDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.write_behind.MOST_BYTES", 50_000)
    threading.Timer(0.2, slow_disk.goes_on.set).start()
    copied(small_recording, tmp_path / "copy.aedat4")
    with open_source(small_recording) as one, open_source(tmp_path / "copy.aedat4") as other:
        assert np.array_equal(content(one)[0], content(other)[0])


def test_a_disk_that_hangs_keeps_nobody_from_ending(
    small_recording: Path, tmp_path: Path, slow_disk: type[SlowDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.write_behind.END_S", 0.1)
    log = LabelLog(tmp_path / "slow.aedat4")
    log.add(Said(1_000_000, "ace"))
    log.add(Said(1_100_000, "ace"))
    log.close()
    assert "slow.labels.csv ends early, since the disk takes too long to write it" in log.failure
    with Tee(Feed(open_source(small_recording))) as tee:
        assert isinstance(tee, Tee)
        tee.start(tmp_path / "slow.aedat4")
        list(tee)
        recorded = tee.stop()
    assert recorded is not None and recorded.failure.startswith("its end is missing")
    slow_disk.goes_on.set()


def test_a_recording_that_somebody_removes_or_replaces_says_so(
    small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.record._LOOK_S", 0.0)
    for harm, told in ((Path.unlink, "it was removed meanwhile"), (replace, "it was replaced meanwhile")):
        out = tmp_path / "out.aedat4"
        with Tee(open_source(small_recording)) as tee:
            assert isinstance(tee, Tee)
            tee.start(out)
            items = iter(tee)
            next(items)
            harm(out)
            assert len(list(items)) > 100
            recorded = tee.stop()
        assert recorded is not None and told in recorded.failure and recorded.events < 12_000
        out.unlink(missing_ok=True)


def replace(path: Path) -> None:
    """Put another file in its place."""
    path.with_name("other").write_bytes(b"other")
    path.with_name("other").replace(path)


def test_labels_whose_folder_somebody_removes_say_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    log = LabelLog(tmp_path / "folder" / "a.aedat4")
    shutil.rmtree(tmp_path / "folder")
    log.close()
    assert "cannot be written on (No such file or directory; check the path)" in log.failure


def test_a_recording_is_not_replaced_unasked(small_recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "there.aedat4"
    out.write_bytes(b"precious")
    with Tee(open_source(small_recording)) as tee:
        assert isinstance(tee, Tee)
        with pytest.raises(RecordingError, match="is there already"):
            tee.start(out)
        with pytest.raises(RecordingError, match="cannot be written"):
            tee.start(tmp_path / "nowhere" / "out.aedat4")
        assert out.read_bytes() == b"precious"
        tee.start(out, replace=True)
    assert out.read_bytes() != b"precious"


def test_a_recording_is_not_written_over_itself(make_recording: Callable[..., Path]) -> None:
    path = make_recording(moving_square(5))
    before = path.read_bytes()
    with Tee(open_source(path)) as tee:
        assert isinstance(tee, Tee)
        with pytest.raises(RecordingError, match="is what is to be recorded"):
            tee.start(path, replace=True)
    assert path.read_bytes() == before


def test_labels_on_a_full_disk_end_with_a_word_and_no_half_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.record.open", FullDisk, raising=False)
    log = LabelLog(tmp_path / "a.aedat4")
    for k in range(8_000):
        log.add(Said(1_000_000 + 100_000 * k, f"label {k // 2}"))
    log.close()
    assert log.failure == (
        f"{log.path} ends early, since it cannot be written on "
        "(No space left on device; make room, or choose another place)"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.labels.csv"]
    rows = list(csv.reader(log.path.open(newline="")))
    assert 1_000 < len(rows) < 4_000 and {len(row) for row in rows} == {5} and rows[-1][-1] == "0.5000"


def test_labels_are_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "run.1.labels.csv").write_text("truth")
    with pytest.raises(RecordingError, match="is there already"):
        LabelLog(tmp_path / "run.1.aedat4")
    LabelLog(tmp_path / "run.2.aedat4").close()
    LabelLog(tmp_path / "run.1.aedat4", replace=True).close()
    assert (tmp_path / "run.1.labels.csv").read_text() != "truth"


@dataclass
class Said:
    t_end_us: int
    label: str
    confidence: float = 0.5
    unsure: bool = False
    t_start_us: int = 0


def test_labels_are_spans_that_are_on_disk_within_a_second(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "a.aedat4")
    said = [Said(1_000_000 + 100_000 * k, "ace" if k < 25 else "ten", 0.25 if k % 2 else 0.75) for k in range(50)]
    said[30].unsure = True
    for prediction in said:
        log.add(prediction)
    deadline = time.monotonic() + 10
    while not _reaches(log.path, said[-1].t_end_us - 1_100_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.close()
    lines = log.path.read_text().splitlines()
    assert lines[0] == "recording,start_us,end_us,label,confidence"
    spans = [line.split(",")[:4] for line in lines[1:]]
    assert spans == [
        ["a.aedat4", "1000000", "3400000", "ace"],
        ["a.aedat4", "3400000", "3900000", "ten"],
        ["a.aedat4", "4000000", "5900000", "ten"],
    ]
    assert all(0.4 < float(line.split(",")[4]) < 0.6 for line in lines[1:])


def _reaches(labels: Path, time_us: int) -> bool:
    """Whether the rows that are on disk do."""
    rows = labels.read_text().splitlines()[1:]
    return bool(rows) and int(rows[-1].split(",")[2]) > time_us


def test_a_label_that_follows_a_gap_does_not_reach_back_over_it(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "a.aedat4")
    for t in (1_000_000, 1_100_000, 9_000_000, 9_100_000, 500_000, 600_000):
        log.add(Said(t, "ace", t_start_us=t - 300_000))
    log.close()
    spans = [line.split(",")[1:3] for line in log.path.read_text().splitlines()[1:]]
    assert spans == [["1000000", "1100000"], ["8700000", "9100000"], ["500000", "600000"]]


def test_labels_that_are_rare_are_kept(tmp_path: Path) -> None:
    """Of a slow model, or with a long hop: each says what its own window showed."""
    log = LabelLog(tmp_path / "a.aedat4")
    for k, end_us in enumerate((0, 1_200_000, 2_400_000, 9_000_000)):
        log.add(Said(end_us, "ace" if k < 3 else "ten", t_start_us=end_us - 1_000_000))
    log.close()
    rows = [line.split(",")[1:4] for line in log.path.read_text().splitlines()[1:]]
    assert rows == [["0", "2400000", "ace"], ["8000000", "9000000", "ten"]]


def test_a_source_of_an_odd_name_can_be_recorded(small_recording: Path, tmp_path: Path) -> None:
    odd = tmp_path / "at 5\u202fPM.aedat4"
    odd.write_bytes(small_recording.read_bytes())
    with Tee(open_source(odd)) as tee:
        tee.start(tmp_path / "b.aedat4")
        list(tee)
    with open_source(tmp_path / "b.aedat4") as source:
        assert source.event_size is not None
