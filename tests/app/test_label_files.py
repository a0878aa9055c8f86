"""What labelling keeps beside the labels: locks, notes, shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.labelling.inputs import Recording
from app.labelling.lock import locked
from app.labelling.notes import DONE, FAILED, Note, Place, read_note, read_notes, state_of, why_again, write_note
from app.labelling.settings import Settings
from app.labelling.shards import remove_shards, write_shards
from app.labelling.windows import COLUMNS, ParquetWindows
from streams.spans import SpanRules
from tests.app.conftest import write_square
from tests.app.test_sources import KINDS
from tests.velora.conftest import make_config, make_recognizer

HOLD = """
import sys, time
from pathlib import Path
from app.labelling.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_for_one_and_freed_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "out" / ".velora" / "lock"
    refused = pytest.raises(ValueError, match=r"out is in use by process \d+ on .* since .*: wait for it")
    with locked(file), refused, locked(file):
        raise AssertionError
    with locked(file):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    file = tmp_path / "out" / ".velora" / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"in use by process {other.pid} "), locked(file):
            raise AssertionError
        other.kill()
        other.wait()
        with locked(file):
            assert file.read_text().startswith("process ")


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(write_square(tmp_path / "in" / "a.aedat4", 2), "a.aedat4")


def written(recording: Recording, out: Path, **changes: object) -> Place:
    """A finished recording with its files."""
    place = Place(out, recording.name)
    out.mkdir(exist_ok=True)
    place.windows("jsonl").touch()
    place.labels.touch()
    files = {"windows_file": place.windows("jsonl").name, "labels_file": place.labels.name}
    note = {"status": DONE, "model": "m", "settings": "s", "state": state_of(recording.path), **files, **changes}
    write_note(place, Note(recording=recording.name, source=str(recording.path), **note))  # type: ignore[arg-type]
    return place


def test_a_finished_recording_is_not_done_again(recording: Recording, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert why_again(recording, out, "m", "s") == "new"
    written(recording, out)
    assert why_again(recording, out, "m", "s") == ""
    assert why_again(recording, out, "other", "s") == "another model"
    assert why_again(recording, out, "m", "other") == "other settings"


def test_size_time_and_beginning_tell_that_a_recording_has_changed(recording: Recording, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(recording, out)
    state = recording.path.stat()
    data = bytearray(recording.path.read_bytes())
    data[1000] ^= 1
    recording.path.write_bytes(data)
    os.utime(recording.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert why_again(recording, out, "m", "s") == "it has changed"
    recording.path.unlink()
    assert why_again(recording, out, "m", "s") == "it cannot be read"


def test_what_failed_or_lost_its_files_is_done_again(recording: Recording, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place = written(recording, out, status=FAILED)
    assert why_again(recording, out, "m", "s") == "it failed before"
    written(recording, out)
    place.labels.unlink()
    assert why_again(recording, out, "m", "s") == "its files are missing"
    place.note.write_text("{")
    assert read_note(place.note) is None and why_again(recording, out, "m", "s") == "new"


def test_a_folder_of_images_changes_with_any_of_them(tmp_path: Path) -> None:
    clip = KINDS["images"][0](tmp_path)
    before = state_of(clip)
    assert state_of(clip) == before and before["size"] > 0
    picture = next((clip / "dvSave-1_dvs").glob("*.png"))
    time.sleep(0.01)
    picture.touch()
    assert state_of(clip) != before


def test_notes_are_found_whatever_the_recordings_are_called(tmp_path: Path) -> None:
    names = ["a", "a.json", "a.json/b", "x" * 250, "ü, \"'\n", "caf\udce9"]
    for name in names:
        write_note(Place(tmp_path, name), Note(name, f"/{name}", DONE, remarks=("one", "two")))
    assert sorted(note.recording for note in read_notes(tmp_path)) == sorted(names)
    assert all(note.remarks == ("one", "two") for note in read_notes(tmp_path))


@pytest.mark.parametrize("field", ["recording", "windows_file", "labels_file"])
@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "x/../../a", "..\\a", "\\\\host\\share", ".."])
def test_a_note_that_names_files_outside_of_its_folder_is_none(tmp_path: Path, field: str, path: str) -> None:
    for name, told in (("good", "a..b/c"), ("bad", path)):
        write_note(Place(tmp_path / name, "a"), Note(**{"recording": "a", "source": "a", "status": DONE, field: told}))
    assert len(list(read_notes(tmp_path / "good"))) == 1 and not list(read_notes(tmp_path / "bad"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("source", 5), ("state", [1]), ("remarks", [1]), ("windows", "two"), ("seconds", "long"), ("reason", None)],
)
def test_a_note_whose_fields_are_of_another_kind_is_none(tmp_path: Path, field: str, value: object) -> None:
    place = Place(tmp_path, "a")
    write_note(place, Note("a", "/a", DONE))
    assert read_note(place.note) is not None
    place.note.write_text(json.dumps(json.loads(place.note.read_text()) | {field: value}))
    assert read_note(place.note) is None


def test_outputs_of_recordings_side_by_side_are_apart() -> None:
    names = ("a", "a.aedat4", "a.raw", "sub/a.aedat4", "a.aedat4.aedat4")
    places = [Place(Path("out"), name) for name in names]
    paths = [path for place in places for path in (place.windows("csv"), place.labels, place.note)]
    assert len(set(paths)) == len(paths)


def test_the_digest_of_settings_changes_with_what_changes_labels() -> None:
    recognizer = make_recognizer(make_config())
    base = Settings(out=Path("out"), model={})
    same = [Settings(out=Path("other"), model={"device": "cuda"}, timeout_s=1, batch=3, feed={"denoise": False})]
    others = [
        Settings(out=Path("out"), model={}, **change)  # type: ignore[arg-type]
        for change in (
            *({"stride": 2}, {"hop": 2}, {"topk": 2}, {"min_confidence": 0.0}, {"format": "csv"}),
            *({"rules": SpanRules(after=4)}, {"rules": SpanRules(min_us=4)}, {"feed": {"flip": "vertical"}}),
        )
    ]
    assert {settings.digest(recognizer) for settings in same} == {base.digest(recognizer)}
    assert len({settings.digest(recognizer) for settings in (base, *others)}) == 1 + len(others)


def test_large_sets_in_parquet_get_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(5):
        place = Place(tmp_path, f"{k}.aedat4")
        file = ParquetWindows(place.windows("parquet"))
        for row in range(10 * k):
            values = (place.name, row, row + 1, "walk", 0.5, False, [["walk", 0.5]], "m", "s")
            file.add(dict(zip(COLUMNS, values, strict=True)))
        file.close()
        name = place.windows("parquet").name
        write_note(place, Note(place.name, "", DONE, windows_file=name))
    assert write_shards(tmp_path, many=6) == 0 and not list(tmp_path.glob("windows-*"))
    assert write_shards(tmp_path, many=5, rows=30) == 3
    shards = [pq.read_table(path) for path in sorted(tmp_path.glob("windows-*.parquet"))]
    assert [len(shard) for shard in shards] == [30, 30, 40]
    told = [(row["recording"], row["start_us"]) for shard in shards for row in shard.to_pylist()]
    assert told == [(f"{k}.aedat4", row) for k in range(5) for row in range(10 * k)]
    remove_shards(tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 5
    Place(tmp_path, "3.aedat4").windows("parquet").unlink()
    assert write_shards(tmp_path, many=4) == 1 and "windows of 1 recordings are gone" in capsys.readouterr().err
