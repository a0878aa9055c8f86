"""Disks that are full, read-only, slow or gone: one clear line, and what was written is readable.

The same command goes on once there is room again.
"""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from streams import LATEST, Live, Sink, run
from streams.record import Tee
from tests.app.fakes import FakeCamera, FakeRecognizer
from tests.trust.faults.disk import Disk, Ended, files
from tests.trust.faults.disk_work import WORKS, Work, damaged
from tests.trust.ledger import Ledger, Row

pytest.importorskip("av")
pytest.importorskip("pyarrow")
pytest.importorskip("tensorboard")

_SLOW = {"train", "evaluate", "label to Parquet", "export to fiftyone", "export to label-studio", "export to elan"}
QUICK = tuple(work for work in WORKS if work.name not in _SLOW)
_FIXES = (
    "make room",
    "choose another place",
    "choose another name",
    "choose a shorter name",
    "check its permissions",
    "check the path",
)
_MOST_S, _MOST_MB = 120.0, 2_000.0


@pytest.fixture(scope="module")
def own_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    try:
        disk = Disk(tmp_path_factory.mktemp("mount"))
    except OSError as error:
        pytest.skip(f"no disk of its own for a test on this system: {error}")
    with disk:
        yield disk


@pytest.fixture
def disk(own_disk: Disk) -> Iterator[Disk]:
    """A disk with nothing on it."""
    yield own_disk
    own_disk.clear()


def wrong(ended: Ended, place: Path, fixes: Sequence[str] = _FIXES) -> str:
    """What is wrong with how a command failed; nothing where it was in one clear line."""
    if ended.code != 1:
        return f"exit code {ended.code}: {ended.words[-3:]}"
    if "Traceback" in ended.stderr or "Exception ignored" in ended.stderr or ended.left:
        return f"{ended.words[-3:]}, left: {ended.left}"
    told = [line for line in ended.words if any(fix in line for fix in fixes)]
    named = any(str(place) in line or line.startswith("velora: standard output: ") for line in told)
    return "" if named else f"no file, or no fix: {ended.words[-3:]}"


def note(row: Row, name: str, ended: Ended, *troubles: str) -> None:
    row.add(name, seconds=ended.seconds, mb=ended.mb, failure="; ".join(filter(None, troubles)))


def test_a_full_disk(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    works = WORKS if nightly else QUICK
    row = ledger.row("full disk", ", ".join(w.name for w in works), most_s=_MOST_S, most_mb=_MOST_MB)
    for work in works:
        for room in _rooms(disk, work, given) if nightly else [4096]:
            disk.fill(room)
            ended = disk.python(work.code(given, disk.path))
            trouble, damage = wrong(ended, disk.path), list(damaged(disk.seen))
            disk.free()
            again = disk.python(work.code(given, disk.path, again=True))
            after = "" if again.code == 0 else f"it does not go on: {again.stderr[-300:]}"
            note(row, f"{work.name}, {room:,} bytes of room", ended, trouble, *damage, after, *damaged(disk.seen))
            disk.clear()
    row.check()


def _rooms(disk: Disk, work: Work, given: Path) -> list[int]:
    """A dozen that are not enough."""
    before = disk.free()
    whole = disk.python(work.code(given, disk.path))
    assert whole.code == 0, whole.stderr
    used = before - disk.free()
    disk.clear()
    return [4096, *(used * k // 12 for k in range(1, 12))]


def test_a_disk_that_may_not_be_written(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    works = [work for work in (WORKS if nightly else QUICK) if not work.stdout]
    row = ledger.row("read-only disk", ", ".join(w.name for w in works), most_s=_MOST_S, most_mb=_MOST_MB)
    disk.read_only(True)
    for work in works:
        note(row, work.name, ended := disk.python(work.code(given, disk.path)), wrong(ended, disk.path))
    assert not files(disk.seen)
    row.check()


def test_files_beyond_a_limit(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    limits = {"record": 20_000, "render": 5_000, "report": 50_000, "convert": 300_000, "replay": 5_000}
    limits |= {"simulate a set": 10_000, "export to csv": 5_000, "train": 100_000} if nightly else {}
    row = ledger.row("files beyond a limit, as of a quota", ", ".join(limits), most_s=_MOST_S, most_mb=_MOST_MB)
    for work in WORKS:
        if work.name in limits:
            ended = disk.python(work.code(given, disk.path), limit=limits[work.name])
            note(row, work.name, ended, wrong(ended, disk.path), *damaged(disk.seen))
            disk.clear()
    row.check()


def test_places_that_are_none(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    works = [work for work in (WORKS if nightly else QUICK) if not work.stdout]
    row = ledger.row(
        "a name that is too long, a file for a folder, no permission",
        ", ".join(w.name for w in works),
        most_s=_MOST_S,
        most_mb=_MOST_MB,
    )
    (disk.seen / "file").touch()
    (disk.seen / "shut").mkdir(mode=0o555)
    for place in ("x" * 300, "file", "shut"):
        for work in works:
            ended = disk.python(work.code(given, disk.path / place))
            note(row, f"{work.name}, {place[:10]}", ended, wrong(ended, disk.path / place))
    assert files(disk.seen) == ["file"]
    row.check()


def test_names_that_are_no_utf_8(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    few = ("record", "simulate", "render", "report", "convert")
    works = [work for work in WORKS if not work.stdout and (nightly or work.name in few)]
    row = ledger.row("a folder whose name is not UTF-8", ", ".join(w.name for w in works), most_s=_MOST_S)
    for work in works:
        (disk.seen / "a\udcff").mkdir()
        ended = disk.python(work.code(given, disk.path / "a\udcff"))
        made = "" if ended.code == 0 and files(disk.seen) else f"exit code {ended.code}: {ended.words[-2:]}"
        note(row, work.name, ended, made, *damaged(disk.seen))
        disk.clear()
    row.check()


#: somebody removes, or replaces by a file, what a command is writing to, as soon as there is something
_MEDDLER = """
import os, shutil, threading, time
from pathlib import Path

def is_begun(place, begun):
    try:
        return any(path.match(begun) for path in place.rglob("*"))
    except OSError:  # temporary files go while they are listed
        return False

def meddle(place, harm, begun):
    while not is_begun(place, begun):
        time.sleep(0.001)
    away = place.rename(place.with_name("away"))  # at once: nobody writes to what is half removed
    shutil.rmtree(away)
    if harm == "replaced":
        place.write_text("in the way")

threading.Thread(target=meddle, args=(Path({place!r}), {harm!r}, {begun!r}), daemon=True).start()
"""
_BEGUN = {
    "record with labels": "*.csv",
    "label": "*.windows.jsonl",
    "simulate a set": "*.part",
    "simulate images": ".scenes",
    "render": "*.part",
    "export to csv": "*.part",
    "train": "tensorboard",
}


@pytest.mark.parametrize("harm", ["removed", "replaced"])
def test_a_folder_that_goes_in_the_middle(disk: Disk, given: Path, ledger: Ledger, nightly: bool, harm: str) -> None:
    few = ("record with labels", "simulate a set", "render")
    works = [work for work in WORKS if work.name in (_BEGUN if nightly else few)]
    row = ledger.row(f"a folder that is {harm} in the middle", ", ".join(w.name for w in works), most_s=_MOST_S)
    for work in works:
        place = disk.path / "place"
        (disk.seen / "place").mkdir()
        meddler = _MEDDLER.format(place=str(place), harm=harm, begun=_BEGUN[work.name])
        ended = disk.python(meddler + work.code(given, place))
        shutil.rmtree(disk.seen / "away", ignore_errors=True)  # where the command ended before its meddler
        well = ended.code == 0 and work.name == "label"  # what went was whole, and is not looked at again
        trouble = "" if well else wrong(ended, place, (*_FIXES, "meanwhile"))
        note(row, work.name, ended, trouble, *damaged(disk.seen))
        disk.clear()
    row.check()


_PAGE = """
import os, time
from pathlib import Path
from app.channel import Channel, Settings
from app.shared_step import SharedStep
from tests.app.fakes import FakeCamera, FakeRecognizer, until

disk = Path({disk!r})
settings = Settings(opened=lambda address: FakeCamera(), record_to=disk)
channel = Channel("dv:", FakeRecognizer(), SharedStep(), settings)
until(lambda: channel.can_record and channel.prediction)
channel.start_recording()
until(lambda: channel.recorded.failure, 30)
failure, number = channel.recorded.failure, channel.moment.number
until(lambda: channel.moment.number > number + 20)
assert not channel.failure and "make room" in failure, failure
line, whole = channel.stop_recording()
assert not whole and "make room" in line, line
os.unlink(disk / ".ballast")
channel.start_recording()
time.sleep(0.5)
line, whole = channel.stop_recording()
assert whole, line
channel.close()
"""
_TEACH = """
import os, shutil, time
from pathlib import Path
from app.lessons import Lessons
from app.teach import Teaching

disk = Path({disk!r})
lessons = Lessons(Path({given!r}) / "lessons")
few = ("--epochs", "2", "--batch", "2", "--sampling", "clip", "--w-rec", "0")
teaching = Teaching(lessons, "demo", disk / "models", "mine", options=few)
assert teaching.wait(100)
state = teaching.state()
assert state.phase == "failed" and "make room" in state.message, state
assert not list((disk / "models").iterdir())
"""


def test_the_page_says_that_a_disk_is_full_and_goes_on(disk: Disk, given: Path, ledger: Ledger, nightly: bool) -> None:
    cases = [("the page's switch that records", _PAGE, 100_000)]
    if nightly:
        cases += [("teaching", _TEACH, room) for room in (0, 4096, 500_000)]
    row = ledger.row("full disk", ", ".join({name: None for name, _, _ in cases}), most_s=_MOST_S, most_mb=_MOST_MB)
    for name, code, room in cases:
        disk.fill(room)
        ended = disk.python(code.format(disk=str(disk.path), given=str(given)))
        note(row, name, ended, ended.stderr[-500:] if ended.code else "", *damaged(disk.seen))
        disk.clear()
    row.check()


class Slow(io.FileIO):
    """A file on a disk that blocks for two seconds now and then."""

    writes = 0

    def __init__(self, path: Path, mode: str, buffering: int) -> None:
        super().__init__(path, mode)

    def write(self, data: Any) -> int:
        Slow.writes += 1
        if Slow.writes % 300 == 20:
            time.sleep(2)
        return super().write(data)


class Seen(Sink):
    """When samples and labels come."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self.labels: list[float] = []

    def on_sample(self, sample: object) -> None:
        self.samples.append(time.monotonic())

    def on_prediction(self, prediction: object) -> None:
        self.labels.append(time.monotonic())


def test_a_slow_disk_stops_neither_view_nor_labels(
    tmp_path: Path, ledger: Ledger, nightly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.recorder import Recorder

    monkeypatch.setattr("streams.aedat4_writer.open", Slow, raising=False)
    monkeypatch.setattr("streams.record.open", Slow, raising=False)
    row, seen = ledger.row("a disk that blocks for 2 s", "a live feed of 50 frames a second"), Seen()
    with row.case("recording"):
        tee = Tee(FakeCamera())
        live, recorder = Live(tee), Recorder(tee)
        recorder.start(tmp_path / "a.aedat4")
        threading.Timer(60.0 if nightly else 4.0, live.stop).start()
        run(live, FakeRecognizer(), sinks=[seen, recorder], policy=LATEST)
        lines = recorder.stop()
        gaps = [b - a for times in (seen.samples, seen.labels) for a, b in zip(times, times[1:], strict=False)]
        row.found = f"longest time without a picture or a label {1e3 * max(gaps):.0f} ms (at most 1000)"
        assert max(gaps) < 1.0 and Slow.writes > 100, row.found
        assert not recorder.failed and len(lines) == 1 and "missing" not in lines[0]
        assert f"{len(seen.samples)} frames" in lines[0].replace(",", "")
    row.check()
