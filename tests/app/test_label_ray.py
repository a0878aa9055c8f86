"""Labelling on a Ray cluster: the labels of one machine, whatever becomes of labellers and nodes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.app.conftest import with_treachery, write_square
from tests.app.test_label import index, label, lines, rows
from tests.app.test_label_killed import VELORA

pytest.importorskip("ray.data", reason="needs Ray: pip install 'velora-rgbe[ray]'")

COUNT = int(os.environ.get("VELORA_RAY_RECORDINGS", "12"))
FRAMES = 60 if COUNT >= 40 else 24  # 2 s
OPTIONS = ["--stride", "1", "--hop", "4", "--min-confidence", "0"]
RAY = ["--engine", "ray"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with names of all kinds."""
    folder = tmp_path_factory.mktemp("ray") / "in"
    for k in range(COUNT):
        write_square(folder / str(k % 3) / f"{'=+-'[k % 3]}slow, {k} ü.aedat4", FRAMES + k % 5)
    return folder


Told = dict[str, tuple[list[tuple[Any, ...]], list[float], list[list[str]]]]


def told(out: Path) -> Told:
    """Labels and times of each recording, its confidences, and its spans."""
    found = {}
    for path in out.rglob("*.windows.jsonl"):
        windows = lines(path)
        assert windows
        name = path.relative_to(out).as_posix().removesuffix(".windows.jsonl")
        spans = [list(row.values())[:4] for row in rows(out / f"{name}.labels.csv")]
        same = [(w["recording"], w["start_us"], w["end_us"], w["label"], w["unsure"]) for w in windows]
        found[name] = same, [w["confidence"] for w in windows], spans
    return found


def assert_like(out: Path, expected: Told) -> None:
    """The same labels and times, confidences but for rounding; nothing half, nothing twice."""
    found = told(out)
    assert found.keys() == expected.keys()
    for name, (same, confidences, spans) in expected.items():
        assert found[name][0] == same and found[name][2] == spans
        assert found[name][1] == pytest.approx(confidences, abs=1e-3)
    done = [name for name, row in index(out).items() if row["status"] == "done"]
    assert sorted(done) == sorted(expected) and not list(out.rglob("*.part"))


@pytest.fixture(scope="module")
def expected(inputs: Path) -> Told:
    """What one job on this machine gives."""
    code, _, stderr = label(inputs, inputs.parent / "one", *OPTIONS, "--jobs", "1")
    assert code == 0, stderr
    assert len(found := told(inputs.parent / "one")) == COUNT
    return found


def assert_no_ray() -> None:
    """Nothing of Ray runs on."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not [p for p in psutil.process_iter(["cmdline"]) if "raylet/raylet" in " ".join(p.info["cmdline"] or ())]:
            return
        time.sleep(0.2)
    raise AssertionError("Ray runs on")


@contextmanager
def listened() -> Iterator[set[str]]:
    """Where processes of this one listen meanwhile."""
    hosts: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.3):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    links = process.net_connections("tcp")
                    hosts.update(link.laddr.ip for link in links if link.status == psutil.CONN_LISTEN)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield hosts
    finally:
        ended.set()
        thread.join()


def test_two_jobs_give_the_labels_of_one(inputs: Path, expected: Told, tmp_path: Path) -> None:
    assert label(inputs, tmp_path / "out", *OPTIONS, "--jobs", "2")[0] == 0
    assert_like(tmp_path / "out", expected)


def test_ray_on_this_machine_gives_the_labels_of_one_job(inputs: Path, expected: Told, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with listened() as hosts:
        code, stdout, stderr = label(inputs, out, *OPTIONS, *RAY, "--json")
    assert code == 0 and "Traceback" not in stderr
    assert hosts and all(ip_address(host.removeprefix("::ffff:")).is_loopback for host in hosts), hosts
    assert_like(out, expected)
    events = [json.loads(line) for line in stdout.splitlines()]  # nothing that Ray prints is among them
    assert sum(event["event"] == "recording" for event in events) == COUNT
    book = json.loads((out / "run.json").read_text())
    assert book["state"] == "finished" and book["engine"]["name"] == "ray" and book["throughput"]["model_seconds"] > 0
    assert_no_ray()
    code, _, stderr = label(inputs, out, *OPTIONS)
    assert code == 0 and f"{COUNT} of {COUNT} recordings are finished, and skipped" in stderr


class Nodes:
    """Two nodes of a cluster, both on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=node)
        self._second = self._cluster.add_node(num_cpus=2, object_store_memory=80 << 20)
        self.address = self._cluster.address

    def kill_second(self) -> None:
        self._cluster.remove_node(self._second, allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", with_treachery(tmp_path_factory.mktemp("treachery")))
        found = Nodes()
        yield found
        found.shutdown()
    assert_no_ray()


def labellers() -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if "LabellerActor" in " ".join(p.info["cmdline"] or ())]


def label_and(
    inputs: list[Path], out: Path, address: str, finished: int, strike: Callable[[], object]
) -> tuple[int, list[dict[str, Any]], str]:
    """Label on a cluster, and do something once so many recordings are finished."""
    command = [*VELORA, "label", *map(str, inputs), "--out", str(out), *OPTIONS, *RAY, "--address", address, "--json"]
    events, errors = list[dict[str, Any]](), list[str]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        listener = threading.Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
        listener.start()
        for line in process.stdout:
            events.append(json.loads(line))
            finished -= events[-1]["event"] == "recording"
            if finished == 0:
                finished = -1
                strike()
        listener.join(60)
        return process.wait(60), [event for event in events if event["event"] == "recording"], errors[0]


def test_labellers_that_die_change_nothing_but_what_kills_them(
    nodes: Nodes, inputs: Path, expected: Told, tmp_path: Path
) -> None:
    """One is killed mid-way; one recording kills whoever opens it, one the process that reads it."""
    for name in ("kills its labeller", "crashes"):
        write_square(tmp_path / "poison" / f"{name}.aedat4", 10)
    struck = list[psutil.Process]()

    def kill_one() -> None:
        found = max(labellers(), key=lambda labeller: len(labeller.children()))
        struck.extend([found, *found.children(recursive=True)])
        found.kill()

    code, events, stderr = label_and([inputs, tmp_path / "poison"], tmp_path / "out", nodes.address, 2, kill_one)
    assert code == 1 and "2 failed:" in stderr and "Traceback" not in stderr
    assert_like(tmp_path / "out", expected)
    failed = {name: row["reason"] for name, row in index(tmp_path / "out").items() if row["status"] == "failed"}
    assert failed == {
        "kills its labeller.aedat4": "it took its labeller down 3 times; leave it out, or convert it",
        "crashes.aedat4": "reading it crashed (SIGSEGV); leave it out, or convert it",
    }
    assert len(events) == len({event["recording"] for event in events}) == COUNT + 2
    assert len(struck) >= 2 and not psutil.wait_procs(struck, timeout=20)[1]  # its readers end with it


def test_a_node_that_is_killed_changes_nothing(nodes: Nodes, inputs: Path, expected: Told, tmp_path: Path) -> None:
    code, events, stderr = label_and([inputs], tmp_path / "out", nodes.address, 2, nodes.kill_second)
    assert code == 0, stderr
    assert_like(tmp_path / "out", expected)
    assert len(events) == len({event["recording"] for event in events}) == COUNT
