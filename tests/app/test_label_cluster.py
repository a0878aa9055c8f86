"""What the command does with the process that speaks with Ray, and what that one decides; no Ray is started here."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from app.labelling import cluster
from app.labelling.cluster import Cluster
from app.labelling.engine import Digests, Facts
from app.labelling.inputs import Recording
from app.labelling.ledger import LOCK
from app.labelling.lock import locked
from app.labelling.notes import DONE, Note
from app.labelling.ray_driver import (
    LONELY_ROUNDS,
    TRIES,
    Failed,
    Going,
    Ready,
    Shape,
    Wanted,
    is_given_up,
    shape_of,
)
from app.labelling.settings import Settings
from tests.app.test_label import label, run

FACTS = Facts(Digests("m", "s"), {"name": "demo"}, 8, {"name": "ray"})
RECORDINGS = [Recording(Path(f"/in/{name}"), name) for name in ("a", "b", "c")]


def pretend(link: Connection, settings: Settings, wanted: Wanted, log: Path) -> None:
    """A driver that does what its address says."""
    if wanted.address == "refuses":
        link.send(Failed("there is no such cluster"))
        return
    link.send(Ready(FACTS))
    first, *others = link.recv()
    link.send(Note(first.name, str(first.path), DONE, events=7, seconds=2.0))
    if wanted.address == "dies":
        log.write_text("something\nthe last words\n")
        os._exit(1)
    if wanted.address == "fails":
        link.send(Failed("a.txt: No space left on device"))
    if wanted.address == "hangs":
        link.send(Going(1.5, {1: 0.5}))
        time.sleep(600)
    for recording in others:
        link.send(Note(recording.name, str(recording.path), DONE, events=1, seconds=1.0))
    link.send(None)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "drive", pretend)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())


def driven(how: str) -> Cluster:
    return Cluster(Settings(Path("out"), {}), Wanted(address=how))


def test_notes_come_as_they_are_told_and_are_counted() -> None:
    with driven("works") as engine:
        assert engine.facts == FACTS
        assert [note.recording for note in engine.label_all(RECORDINGS)] == ["a", "b", "c"]
        assert engine.headway.events == 9 and engine.headway.recorded_us == 4_000_000


def test_it_can_be_stopped_while_nothing_comes() -> None:
    calls = list[dict[Recording, float]]()

    def told() -> None:
        calls.append(dict(engine.headway.shares))
        if calls[-1]:
            engine.stop()

    began = time.monotonic()
    with driven("hangs") as engine:
        assert [note.recording for note in engine.label_all(RECORDINGS, told)] == ["a"]
        assert calls[-1] == {RECORDINGS[1]: 0.5} and engine.model_s == 1.5
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("refuses", "there is no such cluster"),
        ("fails", "a.txt: No space left on device"),
        ("dies", "Ray has ended unforeseen: the last words"),
    ],
)
def test_what_goes_wrong_is_one_line(how: str, told: str) -> None:
    with pytest.raises(ValueError, match=told), driven(how) as engine:
        list(engine.label_all(RECORDINGS))


def test_without_ray_one_line_says_what_to_install(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, stderr = label(two, tmp_path / "out", "--engine", "ray")
    assert code == 1 and stderr == "velora: --engine ray needs Ray: pip install 'velora-rgbe[ray]'\n"


def test_the_options_of_a_cluster_need_the_engine(two: Path, tmp_path: Path) -> None:
    for options in (["--pool", "2"], ["--num-gpus", "1"], ["--address", "auto"], ["--num-gpus", "1.5"]):
        with pytest.raises(SystemExit) as caught:
            run(["label", str(two), "--out", str(tmp_path / "out"), *options])
        assert caught.value.code == 2


def test_nothing_of_ray_or_of_far_storage_is_imported_without_need() -> None:
    import subprocess

    program = (
        "import sys, app.label, app.labelling.labeller; print(sorted({'ray', 'upath', 's3fs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "[]\n"


CPU, GPU, HEAD = {"CPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 1.0}


@pytest.mark.parametrize(
    ("nodes", "wanted", "device", "expected"),
    [
        ([CPU], Wanted(), "auto", Shape(1, 7, 8.0, 0.0, 1)),
        ([CPU, CPU, HEAD], Wanted(), "auto", Shape(2, 7, 8.0, 0.0, 3)),
        ([CPU, CPU], Wanted(jobs=1), "auto", Shape(8, 1, 2.0, 0.0, 2)),
        ([CPU], Wanted(jobs=20), "auto", Shape(1, 20, 8.0, 0.0, 1)),
        ([HEAD], Wanted(), "auto", Shape(1, 1, 1.0, 0.0, 1)),
        ([GPU, GPU, HEAD], Wanted(), "auto", Shape(8, 7, 8.0, 1.0, 3)),
        ([GPU], Wanted(jobs=3), "cuda", Shape(4, 3, 4.0, 1.0, 1)),
        ([GPU], Wanted(num_gpus=0.5), "auto", Shape(8, 3, 4.0, 0.5, 1)),
        ([GPU], Wanted(), "cpu", Shape(1, 31, 32.0, 0.0, 1)),
        ([GPU, CPU], Wanted(pool=3), "auto", Shape(3, 7, 8.0, 1.0, 2)),
        ([HEAD], Wanted(pool=2, num_gpus=1), "auto", Shape(2, 1, 2.0, 1.0, 1)),
    ],
)
def test_the_pool_fits_the_nodes(
    nodes: Sequence[dict[str, float]], wanted: Wanted, device: str, expected: Shape
) -> None:
    assert shape_of(nodes, wanted, device) == expected


def test_a_cluster_without_what_a_labeller_needs_is_one_line() -> None:
    with pytest.raises(ValueError, match="no node of the cluster has 1 GPUs and a CPU for a labeller: see --num-gpus"):
        shape_of([CPU], Wanted(num_gpus=1), "auto")


def test_only_labellers_that_die_while_their_node_lives_are_held_against_a_recording() -> None:
    alive = {"n1", "n2"}
    assert is_given_up(["n1"] * TRIES, alive, 2) and is_given_up(["n1", "n2", "n1"], alive, 2)
    assert not is_given_up(["n1"] * (TRIES - 1), alive, 2)
    assert not is_given_up(["gone", "n1", "gone", "n2"], alive, 3)
    assert is_given_up(["gone"], alive, LONELY_ROUNDS) and not is_given_up([], alive, LONELY_ROUNDS)


def test_a_driver_that_has_ended_before_it_is_told_anything_is_one_line() -> None:
    with driven("works") as engine:
        engine._process.kill()
        engine._process.join()
        with pytest.raises(ValueError, match="Ray has ended unforeseen"):
            list(engine.label_all(RECORDINGS))


def test_names_of_models_are_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "auto", "cpu", "mine"):
        (tmp_path / name).mkdir()
    for model in ("demo", "mine"):
        given = Settings(Path("out"), {"model": model, "device": "cpu", "dtype": "auto", "labels": None})
        placed = cluster._anywhere(given)
        own = model if model == "demo" else str(tmp_path / model)
        assert placed.model == {"model": own, "device": "cpu", "dtype": "auto", "labels": None}
        assert placed.out == tmp_path / "out"


def test_a_node_with_another_folder_in_the_place_of_out_is_refused(tmp_path: Path) -> None:
    """Its labels would be in a folder that nobody looks into."""
    labeller = pytest.importorskip("app.labelling.ray_labeller")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(labeller.ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    with monkeypatch.context(), locked(tmp_path / "here" / LOCK):
        settings = cluster._anywhere(Settings(tmp_path / "here", {}))
        labeller._check_shared(settings)
        with pytest.raises(ValueError, match="10.0.0.7 does not see .*elsewhere: choose an --out that all nodes share"):
            labeller._check_shared(dataclasses.replace(settings, out=tmp_path / "elsewhere"))
    monkeypatch.undo()
