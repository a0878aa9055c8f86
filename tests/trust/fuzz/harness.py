"""Hostile files: small good ones, changed in ways that harm, put through the program in other processes.

    AEDAT = Format("AEDAT 4", seeds, {"bits are flipped": flips, ...}, (decoder, replay, info, label, upload))
    fuzz(AEDAT, ledger, nightly=False, capsys=capsys)

A format is one such entry, in a file of its own. Case k is made by mutator k modulo their number, with a generator that
k seeds, so its number makes it again. The first route takes every case and is the cheapest; of the others, in turn, one
takes each case with `--nightly`, one in 25 else. A case ends in data or in one clear line, within the bounds; else it
is kept in a folder, and what is said names the command that repeats it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator
from rich.console import Console
from rich.progress import track

from tests.trust.fuzz.child import DATA, REFUSED, Children, Outcome, Route
from tests.trust.ledger import Ledger, Row

MOST_S, MOST_MB = 5.0, 500.0
CASES, NIGHTLY_CASES = 300, 10_000
CASES_VARIABLE = "VELORA_FUZZ_CASES"  # another number of cases with --nightly
CHILDREN = Children()  # that all formats share: they take seconds to start
_EVERY = 25  # cases, of which one goes through a second route, if there is little time


@dataclass(frozen=True)
class Case:
    """Files by their path below a folder, and which of them, or which folder, a route is given."""

    files: Mapping[str, bytes]
    address: str

    def write(self, folder: Path) -> Path:
        """Write the files; the path to give a route."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder / self.address

    def but(self, **files: bytes) -> Case:
        """With other contents of some files; of the only one, or the addressed one, by the name `data`."""
        named = {self.address if name == "data" else name: data for name, data in files.items()}
        return replace(self, files={**self.files, **named})

    @property
    def data(self) -> bytes:
        """The addressed file."""
        return self.files[self.address]


#: Changes a case; the second one is another good one, to take parts of.
Mutator = Callable[[Generator, Case, Case], Case]


@dataclass(frozen=True)
class Format:
    """A format of files: good ones, how they are harmed, and the ways through the program that they take."""

    name: str
    seeds: Callable[[Path], Sequence[Case]]  # small ones; the folder is to make them in
    mutators: Mapping[str, Mutator]
    routes: Sequence[Route]  # top-level functions, the cheapest first
    few: int | None = None  # cases if there is little time, where CASES take too much of it


#: What harmed a case, the case, and how it ended by each route that it took.
Attempt = tuple[str, Case, list[tuple[Route, Outcome]]]


def fuzz(
    format: Format,
    ledger: Ledger,
    *,
    nightly: bool,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    most_s: float = MOST_S,
    most_mb: float = MOST_MB,
) -> None:
    """Put the cases of a format through its routes. Raises AssertionError for those that failed."""
    rows = {
        route: ledger.row(f"damaged files: {format.name}", _title(route), most_s=most_s, most_mb=most_mb)
        for route in format.routes
    }
    seeds, kept = format.seeds(tmp_path / "seeds"), _Kept(format.name)
    ended: dict[Route, Counter[str]] = {route: Counter() for route in format.routes}
    _check_seeds(format.routes, seeds, tmp_path / "good")

    def attempt(number: int) -> Attempt:
        name, case = made(format, seeds, number)
        routes = _routes_of(format.routes, number, 1 if nightly else _EVERY)
        return name, case, [(route, _outcome(route, case, tmp_path / str(number))) for route in routes]

    for number, (how, case, outcomes) in enumerate(_on_all_cores(attempt, format, nightly, capsys)):
        for route, outcome in outcomes:
            ended[route][outcome.ended] += 1
            kept.look(rows[route], f"{number}, {how}", case, route, outcome)
    for route, row in rows.items():
        row.found = f"{ended[route][DATA]:,} gave data, {ended[route][REFUSED]:,} a line"
    failures = [f"{row.tried_with}: {failure}" for row in rows.values() for failure in row.failures]
    assert not failures, "\n".join([f"{len(failures)} failures:", *failures])
    assert ended[format.routes[0]][DATA] and ended[format.routes[0]][REFUSED], "the cases are too harmless, or too bad"


def made(format: Format, seeds: Sequence[Case], number: int) -> tuple[str, Case]:
    """A case by its number: in words, and its files."""
    rng = np.random.default_rng([zlib.crc32(format.name.encode()), number])
    names = list(format.mutators)
    chosen = [names[number % len(names)]]
    if rng.random() < 0.2:
        chosen.append(names[int(rng.integers(len(names)))])
    case, other = (seeds[int(rng.integers(len(seeds)))] for _ in range(2))
    for name in chosen:
        case = format.mutators[name](rng, case, other)
    return " and ".join(chosen), case


def _outcome(route: Route, case: Case, folder: Path) -> Outcome:
    outcome = CHILDREN.run(route, case.write(folder))
    shutil.rmtree(folder)
    return outcome


def _title(route: Route) -> str:
    return (route.__doc__ or route.__name__).partition("\n")[0].rstrip(".")


def _check_seeds(routes: Sequence[Route], seeds: Sequence[Case], folder: Path) -> None:
    """Good files give data by every route: what refuses all would pass unnoticed."""
    assert seeds, "there are no good files"
    for number, seed in enumerate(seeds):
        for route in routes:
            outcome = CHILDREN.run(route, seed.write(folder / str(number)))
            assert outcome.ended == DATA, f"good file {number}, {seed.address}, by {_title(route)}: {outcome}"


def _on_all_cores(
    attempt: Callable[[int], Attempt], format: Format, nightly: bool, capsys: pytest.CaptureFixture[str]
) -> Iterator[Attempt]:
    """The attempts of a format in the order of their numbers, with a bar where they take long."""
    cases = int(os.environ.get(CASES_VARIABLE, NIGHTLY_CASES)) if nightly else format.few or CASES
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        attempts: Iterable[Attempt] = pool.map(attempt, range(cases))
        if not nightly:
            yield from attempts
            return
        with capsys.disabled():
            yield from track(attempts, format.name, total=cases, console=Console(stderr=True))


def _routes_of(routes: Sequence[Route], number: int, every: int) -> Iterator[Route]:
    first, *others = routes
    yield first
    if others and number % every == 0:
        yield others[number // every % len(others)]


class _Kept:
    """The folder with cases that failed, which is made for the first one."""

    def __init__(self, name: str) -> None:
        self._name, self._folder = name, Path()

    def look(self, row: Row, name: str, case: Case, route: Route, outcome: Outcome) -> None:
        """Note how a case went."""
        failures = len(row.failures)
        row.add(name, seconds=outcome.seconds, mb=outcome.mb, failure=outcome.failure)
        if len(row.failures) > failures:
            row.failures[-1] += f" [{self._keep(name, case, route)}]"

    def _keep(self, name: str, case: Case, route: Route) -> str:
        if self._folder == Path():
            self._folder = Path(tempfile.mkdtemp(prefix="velora-fuzz-failures-"))
        path = case.write(self._folder / f"{self._name} {name.partition(',')[0]} {route.__name__}".replace(" ", "-"))
        return f"python -m tests.trust.fuzz.child {route.__module__}:{route.__name__} '{path}'"
