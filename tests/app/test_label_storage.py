"""Recordings and labels in storage that is far: the same run, on URLs of fsspec."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import scratch
from app.labelling import far_lock
from app.labelling.inputs import find
from app.labelling.lock import locked
from app.labelling.storage import fetched, is_far, part_of, place, replaced_when_whole
from app.scratch import Scratch
from tests.app.conftest import write_square
from tests.app.test_label import index, label, lines, rows, run
from tests.app.test_sources import KINDS

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("upath")

OPTIONS = ["--stride", "1", "--hop", "4", "--min-confidence", "0"]


@pytest.fixture
def memory() -> Iterator[Any]:
    """Storage in the memory of this process."""
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]
    yield storage
    storage.store.clear()


@pytest.fixture
def drive(two: Path) -> Path:
    """Recordings of several kinds, one of which is a folder, and what is none."""
    write_square(two / "sub, 1" / "=a ü.aedat4", 12)
    for kind in ("raw", "images"):
        (two / "kinds").mkdir(exist_ok=True)
        KINDS[kind][0](two / "kinds")
    (two / "notes.txt").write_text("nothing to see")
    (two / "broken.aedat4").touch()
    return two


NAMES = ["a.aedat4", "b.aedat4", "kinds/a.raw", "kinds/dvSave-1", "sub, 1/=a ü.aedat4"]


def upload(storage: Any, folder: Path, url: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            storage.pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def download(storage: Any, url: str, folder: Path) -> Path:
    root = storage._strip_protocol(url)
    for name in storage.find(url):
        target = folder / name.removeprefix(root).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(storage.cat_file(name))
    return folder


def assert_same_files(found: Path, expected: Path) -> None:
    """The same windows and spans."""
    names = {path.relative_to(expected) for path in expected.rglob("*.windows.jsonl")}
    assert {path.relative_to(found) for path in found.rglob("*.windows.jsonl")} == names
    for name in names:
        for a, b in zip(lines(found / name), lines(expected / name), strict=True):
            assert {**a, "confidence": 0, "topk": 0} == {**b, "confidence": 0, "topk": 0}
            assert a["confidence"] == pytest.approx(b["confidence"], abs=1e-3)
        spans = str(name).replace(".windows.jsonl", ".labels.csv")
        assert [list(row.values())[:4] for row in rows(found / spans)] == [
            list(row.values())[:4] for row in rows(expected / spans)
        ]


def label_far(inputs: str, out: str, *more: str) -> tuple[int, str, str]:
    return run(["label", inputs, "--out", out, *OPTIONS, *more])


def labelled_now(stderr: str) -> int:
    (line,) = (line for line in stderr.splitlines() if " labelled in " in line)
    return int(line.split(": ", 1)[1].split(" ")[0])


def test_labels_of_far_recordings_are_those_of_near_ones(drive: Path, tmp_path: Path, memory: Any) -> None:
    assert label(drive, tmp_path / "near", *OPTIONS)[0] == 1
    upload(memory, drive, "/in")
    code, _, stderr = label_far("memory://in", "memory://labels")
    assert code == 1 and "broken.aedat4: memory://in/broken.aedat4: the file is empty" in stderr
    assert "1 other files in the folders are left alone" in stderr
    far = download(memory, "/labels", tmp_path / "far")
    assert_same_files(far, tmp_path / "near")
    assert not memory.exists("/labels/.velora/lock") and not list(far.rglob("*.part"))
    sources = {name.lstrip("'"): row["source"] for name, row in index(far).items()}
    assert sources == {name: f"memory://in/{name}" for name in (*NAMES, "broken.aedat4")}


def test_what_is_finished_is_skipped_and_what_has_changed_is_not(two: Path, memory: Any) -> None:
    upload(memory, two, "/in")
    assert label_far("memory://in/", "memory://labels")[0] == 0
    assert labelled_now(label_far("memory://in", "memory://labels/")[2]) == 0
    upload(memory, write_square(two / "b.aedat4", 15).parent, "/in")
    assert labelled_now(label_far("memory://in/b*", "memory://labels")[2]) == 1
    memory.rm_file("/labels/a.aedat4.labels.csv")
    code, stdout, _ = label_far("memory://in/a.aedat4", "memory://labels", "--dry-run")
    assert code == 0 and stdout == "label  a.aedat4 (its files are missing)\n"


def test_far_inputs_and_near_labels_and_the_other_way_round(two: Path, tmp_path: Path, memory: Any) -> None:
    upload(memory, two, "/in")
    assert label_far("memory://in", str(tmp_path / "a"))[0] == 0
    assert label_far(str(two), "memory://labels")[0] == 0
    assert label_far(two.as_uri(), (tmp_path / "b ü").as_uri())[0] == 0
    assert_same_files(tmp_path / "a", tmp_path / "b ü")
    assert_same_files(download(memory, "/labels", tmp_path / "c"), tmp_path / "a")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["memory://in"], sorted([*NAMES, "broken.aedat4"])),
        (["memory://in/kinds"], ["a.raw", "dvSave-1"]),
        (["memory://in/kinds/dvSave-1"], ["dvSave-1"]),
        (["memory://in/a.aedat4", "memory://in/kinds/a.raw"], ["a.aedat4", "a.raw"]),
        (["memory://in/*.aedat4"], ["a.aedat4", "b.aedat4", "broken.aedat4"]),
        (["memory://in/**/*.raw"], ["kinds/a.raw"]),
        (["memory://in/k*"], ["kinds/a.raw", "kinds/dvSave-1"]),
    ],
)
def test_urls_mean_recordings(drive: Path, memory: Any, inputs: list[str], expected: list[str]) -> None:
    upload(memory, drive, "/in")
    memory.pipe_file("/in/.hidden/x.aedat4", b"")
    memory.pipe_file("/in/labels/y.aedat4", b"")
    found = find(inputs, None, place("memory://in/labels"))
    assert [recording.name for recording in found.recordings] == expected


def test_a_list_may_name_urls_and_a_missing_one_fails_alone(two: Path, tmp_path: Path, memory: Any) -> None:
    upload(memory, two, "/in")
    memory.pipe_file("/list.txt", b"memory://in/a.aedat4\nmemory://in/none.aedat4\n")
    code, _, stderr = run(["label", "--list", "memory://list.txt", "--out", str(tmp_path / "out"), *OPTIONS])
    assert code == 1 and "none.aedat4: memory://in/none.aedat4: no such file; check the path" in stderr
    assert index(tmp_path / "out")["a.aedat4"]["status"] == "done"


@pytest.mark.parametrize(
    ("inputs", "out", "told"),
    [
        ("memory://nothing", "memory://out", "memory://nothing: there is nothing; check the address"),
        ("odd://x/y", "out", "odd://x/y: "),
        (".", "odd://x/y", "odd://x/y: "),
    ],
)
def test_urls_that_mean_nothing_are_one_line(tmp_path: Path, memory: Any, inputs: str, out: str, told: str) -> None:
    code, _, stderr = label_far(inputs, out)
    assert code == 1 and told in stderr and len(stderr.splitlines()) == 1


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    code, _, stderr = label_far("s3://bucket/in", "s3://bucket/out")
    assert code == 1 and stderr == "velora: s3://bucket/out needs a library: pip install 'velora-rgbe[remote]'\n"


def test_corrections_are_kept_and_shards_written_far_away(two: Path, tmp_path: Path, memory: Any) -> None:
    pytest.importorskip("pyarrow")
    assert label_far(str(two), "memory://labels")[0] == 0
    memory.pipe_file("/labels/a.aedat4.labels.csv", b"corrected")
    assert label_far(str(two), "memory://labels", "--format", "parquet")[0] == 0
    assert memory.cat_file("/labels/a.aedat4.labels.csv.corrected-1") == b"corrected"
    names = {name.rpartition("/")[2] for name in memory.find("/labels")}
    assert "a.aedat4.windows.parquet" in names and "a.aedat4.windows.jsonl" not in names


def test_what_is_fetched_is_gone_afterwards(two: Path, memory: Any) -> None:
    upload(memory, two, "/in")
    with fetched(place("memory://in/a.aedat4")) as here:
        assert here.name == "a.aedat4" and here.read_bytes() == (two / "a.aedat4").read_bytes()
        folder = here.parent
    assert not folder.exists()
    with pytest.raises(FileNotFoundError, match="memory://in/none: no such file"), fetched(place("memory://in/none")):
        raise AssertionError


def test_a_file_is_put_whole_or_not_at_all(memory: Any) -> None:
    out = place("memory://out/sub/a.txt")
    part = part_of(out)
    part.path.write_text("half")
    assert memory.find("/out") == []
    part.drop()
    part = part_of(out)
    part.path.write_text("whole")
    part.keep()
    part.drop()
    assert memory.cat_file("/out/sub/a.txt") == b"whole" and not part.path.exists()


def test_scratch_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch.atexit, "register", lambda _: None)
    living, next_one = Scratch("velora-label-"), Scratch("velora-label-")
    kept = living.new_folder()
    left = tmp_path / "velora-label-killed"
    shutil.copytree(kept.parent, left)
    for folder in (left, kept.parent):
        os.utime(folder / "lock", (time.time() - 100, time.time() - 100))
    next_one.new_folder()
    assert kept.exists() and not left.exists()
    living.close()
    next_one.close()
    assert not list(tmp_path.iterdir())


def test_a_far_lock_is_for_one(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_lock, "BEAT_S", 0.2)
    file = place("memory://out/.velora/lock")
    assert is_far(file)
    refused = pytest.raises(ValueError, match=r"memory://out is in use by process \d+ on .*: wait for it")
    with locked(file), refused, locked(file):
        raise AssertionError
    assert not memory.exists("/out/.velora/lock")


def test_a_far_lock_that_beats_no_more_is_taken_over(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_lock, "BEAT_S", 0.1)
    memory.pipe_file("/out/.velora/lock", b'{"owner": "process 1 on elsewhere", "token": "x", "beat": 3}')
    with locked(place("memory://out/.velora/lock")):
        assert b"elsewhere" not in memory.cat_file("/out/.velora/lock")


def test_who_loses_a_far_lock_ends(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(far_lock, "BEAT_S", 0.1)
    with pytest.raises(ValueError, match="in use by somebody"), locked(place("memory://out/.velora/lock")):
        memory.pipe_file("/out/.velora/lock", b'{"owner": "somebody", "token": "x", "beat": 1}')
        end = time.monotonic() + 20
        while time.monotonic() < end:
            time.sleep(0.05)
        raise AssertionError


def test_labels_from_and_to_s3_are_those_of_near_recordings(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs, whose libraries want other versions than those that are pinned")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**keys, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}.items():
            monkeypatch.setenv(name, value)
        storage = fsspec.filesystem("s3")
        storage.mkdir("bucket")
        upload(storage, drive, "bucket/in")
        assert label(drive, tmp_path / "near", *OPTIONS)[0] == 1
        assert label_far("s3://bucket/in", "s3://bucket/labels")[0] == 1
        assert_same_files(download(storage, "bucket/labels", tmp_path / "far"), tmp_path / "near")
        assert labelled_now(label_far("s3://bucket/in", "s3://bucket/labels")[2]) == 0
    finally:
        server.stop()


def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path) -> None:
    """Of a file of this machine; the error of a write names none."""
    with pytest.raises(OSError, match="No space left") as full, replaced_when_whole(tmp_path / "index.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "index.csv") and not list(tmp_path.iterdir())
