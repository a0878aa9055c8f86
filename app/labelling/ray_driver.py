"""The process that speaks with Ray, for a `Cluster`: Ray prints, keeps threads, and connects anew by itself, none of
which the command should. It ends with its owner.

Recordings are labelled in rounds, each of them one Ray Data pipeline over what is not done yet. What is lost with a
labeller or a node is left for the next round, where whatever was at hand at that moment is tried alone, so that the one
that takes its labeller down can be told from those that were only beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from app.labelling.engine import Facts
from app.labelling.inputs import Recording
from app.labelling.notes import Note, Place, failed_note, is_done, write_note
from app.labelling.settings import Settings

TRIES = 3  # of a recording whose labeller dies
LONELY_ROUNDS = 12  # at most: nodes that go are no recording's fault
_MOST = 64  # recordings of a block: it is what one lost labeller gives back
_DEATHS = 4  # of labellers, beside those that are there, before one has finished anything
_LOCAL = "local"
_WAVES = 8  # blocks that follow one another in one place: the last ones end at about the same time
_STORE_BYTES = 128 << 20  # for objects, of Ray on this machine: notes are small
_LOOK_S, _END_S, _KNOCK_S = 1.0, 20.0, 10.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say of a cluster; None is what fits."""

    jobs: int | None = None
    address: str | None = None
    pool: int | None = None
    num_gpus: float | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the pool: labellers, and what each has."""

    pool: int
    jobs: int
    cpus: float
    gpus: float
    nodes: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Ray is there, and a labeller was tried."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Going:
    """How far it is."""

    model_s: float
    shares: Mapping[int, float]  # by the number of the recording


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot go on."""

    reason: str


Message = Ready | Going | Failed | Note | None  # None: all is done


class Stop(BaseException):
    """The owner wants no more."""


def drive(link: Connection, settings: Settings, wanted: Wanted, log: Path) -> None:
    """The work of the process: `Ready`, then for a list of recordings notes, until it gets None."""
    address = wanted.address or os.environ.get("RAY_ADDRESS") or _LOCAL
    _prepare(log, address)
    import ray

    tell = _Teller(link)
    try:
        _connect(address)
        has = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        rounds = _Rounds(settings, shape_of(has, wanted, str(settings.model.get("device"))), tell)
        tell(Ready(rounds.facts))
        while (recordings := link.recv()) is not None:
            for note in rounds.label(recordings):
                tell(note)
            tell(None)
    except (Stop, SystemExit, EOFError):
        pass
    except Exception as error:
        logging.getLogger(__name__).exception("the cluster")
        tell(Failed(_in_a_line(error)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ray.shutdown()


def _prepare(log: Path, address: str) -> None:
    """What Ray prints goes to a file; nothing is reported to its makers; all ends with the owner."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_AUTO_CONNECT": "0"}
    if address == _LOCAL:  # without clusters, Ray listens to this machine alone
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _stop(*_: object) -> None:
    raise Stop


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    signal.raise_signal(signal.SIGTERM)
    time.sleep(_END_S)
    os._exit(1)  # what Ray has started on this machine ends with it


class _Teller:
    """Sends messages, from any thread."""

    def __init__(self, link: Connection) -> None:
        self._link, self._turn = link, threading.Lock()

    def __call__(self, message: Message) -> None:
        with self._turn:
            self._link.send(message)


def _connect(address: str) -> None:
    import ray

    own = {"include_dashboard": False, "object_store_memory": _STORE_BYTES} if address == _LOCAL else {}
    try:
        if there := re.fullmatch(r"([\w.-]+):(\d+)", address):  # Ray itself tries for minutes
            socket.create_connection((there[1], int(there[2])), _KNOCK_S).close()
        ray.init(address, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{address}: no Ray cluster can be reached there ({' '.join(str(error).split())[:300]})"
        ) from None
    signal.signal(signal.SIGTERM, _stop)  # Ray has put its own there


def shape_of(nodes: Sequence[Mapping[str, float]], wanted: Wanted, device: str) -> Shape:
    """What fits nodes that have these resources.

    Raises ValueError where nothing does, and nobody said how many are wanted.
    """
    any_gpu = device != "cpu" and any(node.get("GPU", 0) for node in nodes)
    gpus = float(any_gpu) if wanted.num_gpus is None else wanted.num_gpus
    fitting = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus]
    if not fitting and wanted.pool is None:
        what = f"{gpus:g} GPUs and a CPU" if gpus else "a CPU"
        raise ValueError(f"no node of the cluster has {what} for a labeller: see --num-gpus, or say --pool and wait")
    places = [int(node["GPU"] / gpus) if gpus else 1 for node in fitting]
    shares = [node["CPU"] / count for node, count in zip(fitting, places, strict=True)] or [2.0]  # of a labeller
    share = min((share for share in shares if share >= 2), default=max(shares))
    jobs = wanted.jobs or max(1, int(share) - 1)
    cpus = min(jobs + 1.0, share if gpus else max(shares))  # no GPU is left alone for want of CPUs
    fit = sum(places) if gpus else sum(int(node["CPU"] / cpus) for node in fitting)
    return Shape(wanted.pool or fit, jobs, cpus, gpus, len(nodes))


def is_given_up(tries: Sequence[str], alive: Set[str], lonely: int) -> bool:
    """Whether it is the recording's fault that it was lost on these nodes: they live on, and so would its labellers.

    After so many `lonely` rounds, that nodes go with it is taken for its fault, too.
    """
    return sum(node in alive for node in tries) >= TRIES or (bool(tries) and lonely >= LONELY_ROUNDS)


class _Rounds:
    """Recordings in, a note for each out, whatever becomes of labellers and nodes."""

    def __init__(self, settings: Settings, shape: Shape, tell: _Teller) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from app.labelling.ray_labeller import Register, facts_of

        self._settings, self._shape, self._tell = settings, shape, tell
        needs = {"num_cpus": shape.cpus, "num_gpus": shape.gpus}
        facts: Facts = ray.get(ray.remote(**needs)(facts_of).remote(settings))
        engine = {"name": "ray", "nodes": shape.nodes, "pool": shape.pool, "jobs": shape.jobs, "num_gpus": shape.gpus}
        self.facts = Facts(facts.digests, facts.model, facts.batch, engine)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._register = ray.remote(num_cpus=0, scheduling_strategy=here)(Register).remote()

    def label(self, recordings: Sequence[Recording]) -> Iterator[Note]:
        """A note for each. Raises ValueError for what concerns all of them."""
        import ray

        todo = dict(enumerate(recordings))
        numbers = {recording.name: number for number, recording in todo.items()}
        tried: defaultdict[int, list[str]] = defaultdict(list)  # the nodes that a recording was lost on
        lonely = 0
        with self._watched():
            while todo:
                held = len(todo), sum(map(len, tried.values()))
                fresh = {number: recording for number, recording in todo.items() if number not in tried}
                lonely += not fresh
                for note in self._round(fresh or todo, alone=not fresh):
                    if todo.pop(numbers[note.recording], None) is not None:
                        yield note
                self._note_losses(todo, tried)
                alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
                for number in [number for number in todo if is_given_up(tried.get(number, ()), alive, lonely)]:
                    yield self._give_up(todo.pop(number), len(tried[number]))
                if fresh and held == (len(todo), sum(map(len, tried.values()))):
                    raise ValueError("no labeller could begin on anything: see `ray status` and the logs of Ray")

    def _round(self, todo: Mapping[int, Recording], alone: bool) -> Iterator[Note]:
        """One pipeline over what is to be done. `alone`: one recording at a time in each labeller."""
        import ray.data

        from app.labelling.ray_labeller import SAID, TASK, Halt, LabellerActor, Task

        shape = self._shape
        pool = min(shape.pool, len(todo))
        block = 1 if alone else max(1, min(_MOST, len(todo) // (pool * _WAVES)))
        calls = 1 if alone else max(2, -(-2 * shape.jobs // block))  # so that each reader has one more before it
        ray.get(self._register.open.remote(TRIES * (len(todo) if alone else pool + _DEATHS)))
        rows = [{TASK: pickle.dumps(Task(number, recording))} for number, recording in todo.items()]
        _set_up_context()
        data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block)).map_batches(
            LabellerActor,
            fn_constructor_args=(self._settings, shape.jobs, self.facts.digests, self._register),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=pool,
                max_tasks_in_flight_per_actor=calls,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            max_restarts=-1,
            max_task_retries=0,  # Ray would wait for the same actor, which may never find a place again
        )
        for row in data.iter_rows():
            said = pickle.loads(row[SAID])
            if isinstance(said, Halt):
                raise ValueError(said.reason)
            yield said

    def _note_losses(self, todo: Mapping[int, Recording], tried: defaultdict[int, list[str]]) -> None:
        """What was at hand and did not come back has been tried once more."""
        import ray

        for number, node in ray.get(self._register.look.remote()).begun.items():
            if number in todo:
                tried[number].append(node)

    def _give_up(self, recording: Recording, tries: int) -> Note:
        reason = f"it took its labeller down {tries} times; leave it out, or convert it"
        digests, place = self.facts.digests, Place(self._settings.out, recording.name)
        note = failed_note(recording, digests.model, digests.settings, reason)
        if not is_done(place):
            write_note(place, note)
        return note

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Tell now and then how far it is."""
        import ray

        ended = threading.Event()

        def watch() -> None:
            with contextlib.suppress(Exception):  # of a cluster that goes, which is found elsewhere
                last = False
                while not last:
                    last = ended.wait(_LOOK_S)
                    look = ray.get(self._register.look.remote(), timeout=60)
                    self._tell(Going(look.model_s, look.shares))

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join(_END_S)


def _set_up_context() -> None:
    """Of Ray Data: notes come back one by one, what is lost does not end the rest, and nothing is printed."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = 1  # byte: each note is passed on as it is
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = TRIES
    context.execution_no_progress_timeout_s = -1  # recordings may be long
    context.enable_progress_bars = context.print_on_execution_start = False


def _in_a_line(error: Exception) -> str:
    """An error, that may have been raised elsewhere, for people."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    own = type(error).__module__.partition(".")[0] in ("streams", "velora", "app") or isinstance(error, ValueError)
    return str(error) if own else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
