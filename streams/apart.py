"""Files that are opened and read in a process of their own, which is ended where their decoder hangs or crashes.

    apart = Apart("streams.hdf5:Hdf5Source", path, options={"size": (640, 480)}, facts=["span_us"])
    apart.facts["span_us"]
    for item in apart.read("read", 1_000_000): ...       what the method `read` of that class yields, read on ahead
    apart.close()

The process is another one for each file that is open, and waits for the next one when it is closed.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from streams.errors import RecordingError, StreamError
from streams.items import Item
from streams.limits import Limits
from streams.parcels import Parcel
from streams.worker_process import IDLE, WorkerEnded, WorkerProcess

_GRACE_S = 5.0  # before a process that should have ended itself is ended
_FAULTS = {"RecordingError": RecordingError, "StreamError": StreamError, "ValueError": ValueError}


class Apart:
    """A file, opened by a class (module:name) in another process; `facts` are attributes of its instance.

    Several iterations may go on at once, and may be left at any place. Once it is closed, from any thread, they end.

    Raises what the class raises of StreamErrors and ValueErrors, and RecordingError where the process ends, or wants
    too much time or memory.
    """

    def __init__(self, kind: str, path: Path, *, options: Mapping[str, Any], facts: Sequence[str]) -> None:
        self.counts: Counter[str] = Counter()  # what was lost
        self._path, self._absolute = path, path.absolute()
        self._turn = threading.Lock()  # of who asks the process
        self._numbers = count()
        self._due: deque[int] = deque()  # iterations that the process was asked for and has not answered
        self._arrived: dict[int, deque[Parcel]] = {}  # its answers, by iteration
        self._left: list[int] = []  # iterations to forget
        limits = Limits.of(path)
        self._timeout_s = limits.waiting_s + _GRACE_S
        request = {"open": kind, "path": str(self._absolute), "options": options, "facts": facts}
        request["limits"] = asdict(limits)
        self._process: WorkerProcess | None = None
        self.facts = self._open(request)

    def read(self, method: str, *arguments: Any) -> Iterator[Item]:
        """What a method of the instance yields. Raises as the class does."""
        number = next(self._numbers)
        self._arrived[number] = deque()
        asked = {"method": method, "arguments": arguments}
        try:
            end = False
            while not end:
                with self._turn:
                    items, end = self._next(number, asked)
                yield from items
                asked = {}
        finally:
            del self._arrived[number]
            self._left.append(number)

    def close(self) -> None:
        """Close the file, from any thread."""
        process, self._process = self._process, None
        if process is None:
            return
        if not self._turn.acquire(blocking=False):
            process.kill()  # somebody waits for it
            return
        try:
            self._release(process)
        finally:
            self._turn.release()

    def _release(self, process: WorkerProcess) -> None:
        """Let it read other files, if it is at rest."""
        if self._due:
            process.end()
            return
        with suppress(WorkerEnded):
            process.ask({"close": True})
            head, _ = process.answer(self._timeout_s)
            if head:
                process.end()
            else:
                IDLE.give(process)

    # --- asking the process -------------------------------------------------------------------------------------------

    def _open(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            process, head = self._opened(IDLE.take(), request)
        except WorkerEnded as ended:
            raise ended.of(self._path) from None
        except OSError as error:
            raise RecordingError(f"{self._path}: cannot be read: no process starts for it ({error.strerror})") from None
        self._check(process, head)
        if "fault" in head:
            IDLE.give(process)
            raise self._fault(head)
        if set(head.get("facts", ())) != set(request["facts"]):
            raise self._nonsense(process)
        self._process = process
        self._count(head)
        return {name: tuple(fact) if isinstance(fact, list) else fact for name, fact in head["facts"].items()}

    def _opened(self, process: WorkerProcess, request: Mapping[str, Any]) -> tuple[WorkerProcess, dict[str, Any]]:
        """The process that has opened the file, and what it answered."""
        process.files += 1
        try:
            process.ask(request)
            return process, process.answer(self._timeout_s)[0]
        except WorkerEnded as ended:
            if process.files == 1 or ended.hung:
                raise
        return self._opened(WorkerProcess(), request)  # a file before may have harmed the last one

    def _next(self, number: int, asked: Mapping[str, Any]) -> tuple[list[Item], bool]:
        """The next items of an iteration, and whether they are the last; if not, more are asked for."""
        process, arrived = self._process, self._arrived[number]
        if process is None:
            return [], True
        try:
            if asked:
                self._ask(process, number, asked)
            while not arrived:
                self._take_in(process)
            head, items = arrived.popleft()
            self._check(process, head)
            if not (end := "fault" in head or bool(head["end"])):
                self._ask(process, number, {})
        except WorkerEnded as ended:
            if self._process is None:  # closed meanwhile
                return [], True
            raise ended.of(self._path) from None
        if "fault" in head:
            raise self._fault(head)
        self._count(head)
        return items, end

    def _take_in(self, process: WorkerProcess) -> None:
        """The answer that is due next, for whichever iteration it is."""
        answer = process.answer(self._timeout_s)
        if (of := self._due.popleft()) in self._arrived:
            self._arrived[of].append(answer)

    def _ask(self, process: WorkerProcess, number: int, asked: Mapping[str, Any]) -> None:
        while self._due:  # another iteration's: the next answer would lie where that one does
            self._take_in(process)
        left, self._left = self._left, []
        process.ask({"next": number, "drop": left, **asked})
        self._due.append(number)

    def _check(self, process: WorkerProcess, head: Mapping[str, Any]) -> None:
        """Raise RecordingError for an answer that is none: a hostile file may have made its decoder say anything."""
        if not _is_sound(head):
            raise self._nonsense(process)

    def _nonsense(self, process: WorkerProcess) -> RecordingError:
        process.end()
        return RecordingError(f"{self._path}: its decoder says what makes no sense; copy the file again")

    def _count(self, head: Mapping[str, Any]) -> None:
        self.counts.update(head["counts"])

    def _fault(self, head: Mapping[str, Any]) -> Exception:
        """The error that an answer tells of."""
        kind, text = head["fault"], str(head["text"]).replace(str(self._absolute), str(self._path))
        if kind == "MemoryError":
            return RecordingError(f"{self._path}: takes more memory than such a file should; copy the file again")
        return _FAULTS[kind](text) if kind in _FAULTS else RuntimeError(f"{self._path}: {kind}: {text}")


def _is_sound(head: Mapping[str, Any]) -> bool:
    """Whether an answer is one: a fault, or counts, and facts that are numbers."""
    if "fault" in head:
        return isinstance(head["fault"], str) and isinstance(head.get("text"), str)
    counts, facts = head.get("counts"), head.get("facts", {})
    if not (isinstance(counts, dict) and isinstance(facts, dict) and isinstance(head.get("end", False), bool)):
        return False
    whole = all(type(lost) is int and lost >= 0 for lost in counts.values())
    return whole and all(fact is None or _are_numbers(fact) for fact in facts.values())


def _are_numbers(fact: object) -> bool:
    """A number, or a list of some."""
    parts = fact if isinstance(fact, list) else [fact]
    return all(isinstance(part, (int, float)) and math.isfinite(part) for part in parts)
