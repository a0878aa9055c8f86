"""Folders as people have them: videos beside recordings, links, mixed formats, storages that fail, moved copies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.export.places import Places
from app.labelling.inputs import find
from app.labelling.notes import Place, read_note, write_note
from tests.app.conftest import write_square
from tests.app.label_outputs import SPANS, run, write_note_of, write_outputs
from tests.app.test_label import index, label
from tests.app.test_label import run as run_velora
from tests.app.test_label_storage import OPTIONS, label_far, labelled_now, memory, upload  # noqa: F401

ROOT = Path(__file__).parents[2]


def test_a_recording_beside_its_own_video_is_still_one(tmp_path: Path) -> None:
    """The video of `walk.aedat4` is `walk.aedat4.mp4`, of which `walk.aedat4.video.json` tells."""
    write_square(tmp_path / "walk.aedat4", 4)
    assert run("render", tmp_path / "walk.aedat4", "--out", tmp_path / "walk.aedat4.mp4")[0] == 0
    assert (tmp_path / "walk.aedat4.video.json").exists()
    (found,) = find([str(tmp_path)], None, tmp_path / "out").recordings
    assert found.name == "walk.aedat4"


def test_videos_that_were_made_are_no_recordings_in_a_storage_either(two: Path, memory: Any) -> None:  # noqa: F811
    for name in ("b.aedat4.mp4", "b.aedat4.video.json"):
        (two / name).write_bytes(b"{}")
    upload(memory, two, "/in")
    found = find(["memory://in"], None, two / "out")
    assert [recording.name for recording in found.recordings] == ["a.aedat4", "b.aedat4"]


def test_what_was_labelled_with_options_of_other_kinds_is_exported_and_rendered(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert label(two, out, "--size", "346x260")[0] == 0
    code, _, said = run("export", out, "--to", "csv", "--out", tmp_path / "ex")
    assert code == 0 and len(list(tmp_path.rglob("*.mp4"))) == 2, said
    code, _, said = run("render", two, "--out", tmp_path / "videos", "--size", "346x260")
    assert code == 0 and "2 rendered" in said


@pytest.mark.parametrize("tag", ["5d41402abc4b2a76b9719d911017c592", "5d41402abc4b2a76b9719d911017c592-3"])
def test_what_was_labelled_in_a_storage_is_found_where_it_was_copied_to(tmp_path: Path, tag: str) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    note = read_note(Place(out, "a.aedat4").note)
    assert note is not None
    far = {"size": note.state["size"], "mtime": "2026", "tag": tag}
    write_note(Place(out, "a.aedat4"), replace(note, source="s3://lab/in/a.aedat4", state=far))
    code, _, said = run("export", out, "--to", "csv", "--no-video", "--out", tmp_path / "ex")
    assert code == 1 and "has gone or changed" in said
    options = ("--recordings", tmp_path / "in")
    code, _, said = run("export", out, "--to", "csv", "--no-video", "--out", tmp_path / "ex", *options)
    assert code == 0, said


def test_labels_in_a_storage_are_to_be_copied_first() -> None:
    for command in (["export", "s3://lab/labels", "--to", "csv", "--out", "ex"], ["report", "s3://lab/labels"]):
        code, _, said = run(*command)
        assert code == 1 and said.endswith("copy their folder here first\n") and len(said.splitlines()) == 1


def test_recordings_of_one_name_are_read_once_to_find_those_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{k}/events.aedat4" for k in range(12)]
    out = write_outputs(tmp_path, dict.fromkeys(names, SPANS))
    for k, name in enumerate(names):
        write_note_of(out, write_square(tmp_path / "in" / name, 15 + k), name, SPANS)
        (tmp_path / "moved" / f"day {k}").mkdir(parents=True)
        shutil.copy(tmp_path / "in" / name, tmp_path / "moved" / f"day {k}")
        shutil.copytree(tmp_path / "moved" / f"day {k}", tmp_path / "moved" / "backup" / f"day {k}")
    notes = [read_note(Place(out, name).note) for name in names]
    shutil.rmtree(tmp_path / "in")
    from app.export import places

    looked: list[Path] = []
    state_of = places.state_of
    monkeypatch.setattr(places, "state_of", lambda path: looked.append(path) or state_of(path))
    found = [Places(tmp_path / "moved").find(note) for note in notes[:1] if note is not None]
    assert found[0] is not None
    looked.clear()
    once = Places(tmp_path / "moved")
    assert all(once.find(note) is not None for note in notes if note is not None)
    assert len(looked) <= 2 * len(names)


def test_a_recording_by_another_path_is_itself(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "link").symlink_to(two)
    assert label(tmp_path / "link", out)[0] == 0
    code, _, said = label(two, out, "--force")
    assert code == 0, said


def test_an_export_whose_output_nobody_reads_any_more_has_not_gone_well(tmp_path: Path) -> None:
    out = write_outputs(tmp_path, {"a.aedat4": SPANS})
    code = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    line = ["export", str(out), "--to", "csv", "--no-video", "--out", str(tmp_path / "ex"), "--json"]
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-c", code, *line]
    ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=120, cwd=ROOT)
    os.close(theirs)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("nobody reads its output any more; the same command goes on")


def test_videos_of_recordings_labelled_otherwise_are_told_of(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_velora(["label", str(two / "a.aedat4"), "--out", str(out), *OPTIONS])[0] == 0
    assert run_velora(["label", str(two / "b.aedat4"), "--out", str(out), *OPTIONS, "--rotate", "180"])[0] == 0
    code, _, said = run("export", out, "--to", "csv", "--out", tmp_path / "ex")
    assert code == 0 and "1 recording labelled with other settings than those of the last run" in said


def test_a_recording_in_a_storage_is_not_rendered(two: Path, tmp_path: Path, memory: Any) -> None:  # noqa: F811
    upload(memory, two, "/in")
    code, _, said = run("render", "memory://in/a.aedat4", "--out", tmp_path / "v")
    assert code == 1 and said.endswith("copy it here first\n") and len(said.splitlines()) == 1


class Refused(Exception):
    """As the libraries of storages have their own."""


def test_a_storage_that_fails_once_costs_one_recording(
    two: Path,
    tmp_path: Path,
    memory: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload(memory, two, "/in")
    from app.labelling import labeller

    write, times = labeller.write_note, iter([True, False, False, False])

    def failing(*given: Any) -> None:
        if next(times):
            raise Refused("service unavailable")
        write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(labeller, "write_note", failing)
        code, _, said = label_far("memory://in", "memory://labels")
    assert code == 1 and "Refused: service unavailable; the same command tries again" in said
    assert labelled_now(said) == 1
    code, _, said = label_far("memory://in", "memory://labels")
    assert (code, labelled_now(said)) == (0, 1), said


def test_shards_of_odd_names_are_written_once(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("app.labelling.shards.write_shards.__kwdefaults__", {"many": 2, "rows": 1_000_000})
    try:
        (two / "a.aedat4").rename(two / os.fsdecode(b"caf\xe9.aedat4"))
    except OSError:
        pytest.skip("no such name can be here")
    out = tmp_path / "out"
    code, _, said = label(two, out, "--format", "parquet")
    assert code == 0, said
    (shard,) = out.glob("windows-*.parquet")
    assert json.loads((out / "run.json").read_text())["state"] == "finished"
    before = shard.stat().st_mtime_ns
    assert label(two, out, "--format", "parquet")[0] == 0
    assert shard.stat().st_mtime_ns == before and len(index(out)) == 2
