"""A labeller on a Ray cluster, and the register in which it says what it is at.

Ray Data gives an actor several blocks of recordings at a time; all go to one `Labeller`, which fills its batches from
whatever it has, and each note goes back with the block it came with, as soon as it is there.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import queue
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from app.labelling.engine import Digests, Facts
from app.labelling.inbox import Inbox
from app.labelling.inputs import Recording
from app.labelling.ledger import LOCK
from app.labelling.lock import seal_of
from app.labelling.notes import Note
from app.labelling.settings import Settings
from streams.files import GENERAL, reason

if TYPE_CHECKING:
    from app.labelling.labeller import Labeller

TASK, SAID = "task", "said"  # the columns of what goes in and out: a pickled `Task`, a pickled note or `Halt`
_TELL_S = 1.0  # between two times that it tells how far it is
_GATHER_S = 0.25  # notes that are ready within this time go back together


@dataclass(frozen=True, slots=True)
class Task:
    """A recording, and its number in this run."""

    number: int
    recording: Recording


@dataclass(frozen=True, slots=True)
class Halt:
    """Something that concerns all recordings: a full disk, a model that cannot be read here."""

    reason: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the register holds."""

    begun: Mapping[int, str]  # recordings by number, and the node that was at each
    model_s: float
    shares: Mapping[int, float]  # of the recordings at hand, how far each one is


class Register:
    """An actor beside the driver. What was begun and is not finished was at hand when its labeller died."""

    def __init__(self) -> None:
        self._begun: dict[int, str] = {}
        self._told: dict[str, tuple[float, dict[int, float]]] = {}
        self._starts, self._most = 0, 0

    def open(self, most_starts: int) -> None:
        """A round begins, in which so many labellers may start one after the other and finish nothing."""
        self._begun.clear()
        self._told = {labeller: (spent, {}) for labeller, (spent, _) in self._told.items()}
        self._starts, self._most = 0, most_starts

    def start(self) -> bool:
        """A labeller has started; whether there is hope for it."""
        self._starts += 1
        return self._starts <= self._most

    def begin(self, number: int, node: str) -> None:
        """A recording has been begun."""
        self._begun[number] = node

    def finish(self, number: int) -> None:
        """A recording is finished."""
        self._begun.pop(number, None)
        self._starts = 0

    def tell(self, labeller: str, model_s: float, shares: dict[int, float]) -> None:
        """How far a labeller is."""
        self._told[labeller] = model_s, shares

    def look(self) -> Look:
        """All of it."""
        shares = {number: share for _, told in self._told.values() for number, share in told.items()}
        return Look(dict(self._begun), sum(spent for spent, _ in self._told.values()), shares)


class LabellerActor:
    """What Ray Data calls with blocks, from several threads."""

    def __init__(self, settings: Settings, jobs: int, digests: Digests, register: Any) -> None:
        self._desk = _Desk(register)
        work = partial(self._desk.work, settings, jobs, digests)
        threading.Thread(target=work, name="labeller", daemon=True).start()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        tasks = [pickle.loads(task) for task in block[TASK].to_pylist()]
        for said in self._desk.label(tasks):
            yield pa.table({SAID: pa.array([pickle.dumps(one) for one in said], pa.binary())})


class _Desk:
    """Between the threads that bring blocks and the one that labels."""

    def __init__(self, register: Any) -> None:
        self._register, self._node = register, ray.get_runtime_context().get_node_id()
        self._name = uuid.uuid4().hex
        self._numbers: dict[str, int] = {}
        self._back: dict[str, queue.Queue[Note | Halt]] = {}
        self._inbox = Inbox(taken=self._begin)
        self._halt: Halt | None = None
        self._due = 0.0

    def label(self, tasks: Sequence[Task]) -> Iterator[list[Note | Halt]]:
        """Notes as they come, some at a time; one `Halt` where there will be none."""
        back: queue.Queue[Note | Halt] = queue.Queue()
        for task in tasks:
            self._numbers[task.recording.name], self._back[task.recording.name] = task.number, back
            self._inbox.put(task.recording)
        left = len(tasks)
        while left:
            said = self._gathered(back, left)
            if said:
                yield said
            left -= len(said)
            if self._halt is not None:
                yield [self._halt]
                return

    def _gathered(self, back: queue.Queue[Note | Halt], left: int) -> list[Note | Halt]:
        said = list[Note | Halt]()
        end = time.monotonic() + _TELL_S
        while len(said) < left and self._halt is None and (wait_s := end - time.monotonic()) > 0:
            try:
                said.append(back.get(timeout=wait_s))
            except queue.Empty:
                break
            end = min(end, time.monotonic() + _GATHER_S)
        return said

    def work(self, settings: Settings, jobs: int, digests: Digests) -> None:
        """Label what comes, until the process ends. What only this process suffers from ends it: another one starts."""
        labeller_class = _prepared()
        from velora import ModelError

        try:
            _check_shared(settings)
            if not ray.get(self._register.start.remote()):
                raise ValueError("labellers end again and again, and finish nothing: see the logs of Ray")
            with labeller_class(settings, jobs) as labeller:
                if labeller.digests != digests:
                    raise ValueError(_unlike(labeller.facts))
                for note in labeller.label_all(self._inbox, told=lambda: self._tell(labeller)):
                    self._register.finish.remote(self._numbers[note.recording])
                    self._back.pop(note.recording).put(note)
        except (ValueError, ModelError) as error:
            self._halt = Halt(str(error))
        except BaseException as error:
            if not (isinstance(error, OSError) and error.errno in GENERAL):
                traceback.print_exc()
                os._exit(1)
            self._halt = Halt(f"{ray.util.get_node_ip_address()}: {error.filename or 'storage'}: {reason(error)}")

    def _begin(self, recording: Recording) -> None:
        self._register.begin.remote(self._numbers[recording.name], self._node)

    def _tell(self, labeller: Labeller) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _TELL_S
        shares = {self._numbers[recording.name]: share for recording, share in labeller.headway.shares.items()}
        self._register.tell.remote(self._name, labeller.model_s, shares)


def facts_of(settings: Settings) -> Facts:
    """What a labeller is on the machine where this runs. Raises what making one raises."""
    labeller_class = _prepared()
    _check_shared(settings)
    with labeller_class(settings) as labeller:
        return dataclasses.replace(labeller.facts, engine={})


def _check_shared(settings: Settings) -> None:
    """Raise ValueError where the output folder is not the one of the command: its labels would be lost here."""
    if seal_of(settings.out / LOCK) != settings.seal:
        node = ray.util.get_node_ip_address()
        raise ValueError(f"{node} does not see {settings.out}: choose an --out that all nodes share, or a URL")


def _prepared() -> type[Labeller]:
    """Import what labels, in a process that knows nothing of torch yet; why, `app.cli` says."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from app.labelling.labeller import Labeller

    return Labeller


def _unlike(facts: Facts) -> str:
    """Of labellers that would not give the same labels."""
    device, dtype = facts.model["device"], facts.model["dtype"]
    node = ray.util.get_node_ip_address()
    return (
        f"the labeller on {node} has another model or computes differently ({device}, {dtype}): give all nodes the "
        "same files, and choose --device and --dtype"
    )
