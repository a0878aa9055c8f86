"""Recording: what flows is what is in the file, also after a kill or on a full disk, and other readers agree."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from streams import EventPacket, RecordingError, RgbFrame, Source, open_source
from streams.aedat4_writer import Aedat4Writer
from streams.items import Events
from streams.record import LabelLog, Tee
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


def test_a_full_disk_ends_the_recording_and_not_the_feed(
    small_recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Aedat4Writer._put

    def put_until_full(writer: Aedat4Writer, data: bytes) -> None:
        if writer.size > 100_000:
            writer._file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        put(writer, data)

    monkeypatch.setattr(Aedat4Writer, "_put", put_until_full)
    out = tmp_path / "full.aedat4"
    with Tee(open_source(small_recording)) as tee:
        assert isinstance(tee, Tee)
        tee.start(out)
        items = list(tee)
        recorded = tee.stop()
    assert recorded is not None and "No space left" in recorded.failure and not tee.recording
    with open_source(small_recording) as source:
        assert len(list(source)) == len(items)
    with open_source(out) as source:
        kept = list(source)
        assert not source.counts["corrupt packets skipped"]
    assert 5 < len(kept) < len(items)


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


def test_labels_on_a_full_disk_end_with_a_word_and_nothing_else(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "a.aedat4")
    log._file.close()
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log._file = open("/dev/full", "w")  # noqa: SIM115
    for k in range(40):
        log.add(Said(1_000_000 + 100_000 * k, f"label {k // 5}"))
    log.close()
    assert "No space left" in log.failure
    assert [path.name for path in tmp_path.iterdir()] == ["a.labels.csv"]


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


def test_labels_are_spans_that_are_on_disk_within_a_second(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "a.aedat4")
    said = [Said(1_000_000 + 100_000 * k, "ace" if k < 25 else "ten", 0.25 if k % 2 else 0.75) for k in range(50)]
    said[30].unsure = True
    for prediction in said:
        log.add(prediction)
    rows = log.path.read_text().splitlines()[1:]
    assert int(rows[-1].split(",")[2]) > said[-1].t_end_us - 1_100_000
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


def test_a_label_that_follows_a_gap_does_not_reach_back_over_it(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "a.aedat4")
    for t in (1_000_000, 1_100_000, 9_000_000, 9_100_000, 500_000, 600_000):
        log.add(Said(t, "ace"))
    log.close()
    spans = [line.split(",")[1:3] for line in log.path.read_text().splitlines()[1:]]
    assert spans == [["1000000", "1100000"], ["9000000", "9100000"], ["500000", "600000"]]
