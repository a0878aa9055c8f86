"""What was tried, how it went and within which bounds: a row for each kind of harm, and the page that shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import perf_counter

import psutil
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.bench.machine import machine
from streams.files import replaced_when_whole

PAGE = Path(__file__).parents[2] / "docs" / "RELIABILITY.md"
_HEADINGS = ("what", "tried with", "cases", "failures", "worst time", "worst memory", "bounds", "found", "on")
_SHOWN = 20  # failures that a failing test tells
BUSY = 8.0  # how much longer things may take on a machine that other work keeps busy


@dataclass
class Row:
    """Cases of one kind. Times in seconds, memory in MB (resident, of the process that the case runs in)."""

    what: str
    tried_with: str
    most_s: float | None = None  # the bounds, where there are any
    most_mb: float | None = None
    slack: float = 1.0  # times longer than its bound a case may take: 1 on a machine that does nothing else
    cases: int = 0
    failures: list[str] = field(default_factory=list)
    worst_s: float = 0.0
    worst_mb: float = 0.0
    found: str = ""  # a figure that matters here, with its unit and its bound: "lag 80 ms (at most 200)"

    def add(self, name: str, *, seconds: float, mb: float | None = None, failure: str = "") -> None:
        """A case. Beyond a bound it failed, however it ended."""
        self.cases += 1
        self.worst_s, self.worst_mb = max(self.worst_s, seconds), max(self.worst_mb, mb or 0.0)
        if failure:
            self.failures.append(f"{name}: {failure}")
        if self.most_s is not None and seconds > self.slack * self.most_s:
            self.failures.append(f"{name}: took {seconds:.1f} s")
        if self.most_mb is not None and (mb or 0.0) > self.most_mb:
            self.failures.append(f"{name}: took {mb:.0f} MB")

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """What runs in it is a case, timed, in this process. What it raises is noted as its failure, and raised."""
        began, failure = perf_counter(), ""
        try:
            yield
        except BaseException as error:
            failure = repr(error)[:200]
            raise
        finally:
            mb = psutil.Process().memory_info().rss / 1e6
            self.add(name, seconds=perf_counter() - began, mb=mb, failure=failure)

    def check(self) -> None:
        """Raise AssertionError where a case failed, or none was tried."""
        assert self.cases, f"{self.what}, {self.tried_with}: nothing was tried"
        assert not self.failures, "\n".join([f"{len(self.failures)} of {self.cases}:", *self.failures[:_SHOWN]])

    @property
    def bounds(self) -> str:
        """In words."""
        parts = (f"{self.most_s:g} s" if self.most_s else "", f"{self.most_mb:g} MB" if self.most_mb else "")
        return ", ".join(filter(None, parts))

    def cells(self) -> tuple[str, ...]:
        """As a table shows it."""
        mb = f"{self.worst_mb:,.0f} MB" if self.worst_mb else ""
        figures = (f"{self.cases:,}", str(len(self.failures)), f"{self.worst_s:.3g} s", mb)
        return (self.what, self.tried_with, *figures, self.bounds, self.found, str(date.today()))


class Ledger:
    """All rows of a run, whose times may be so many times longer than their bounds."""

    def __init__(self, slack: float = 1.0) -> None:
        self.slack = slack
        self.rows: list[Row] = []

    def row(self, what: str, tried_with: str, *, most_s: float | None = None, most_mb: float | None = None) -> Row:
        """A new row, to be filled."""
        self.rows.append(Row(what, tried_with, most_s, most_mb, self.slack))
        return self.rows[-1]

    def show(self) -> None:
        """On the terminal."""
        table = Table(*_HEADINGS)
        for row in self.rows:
            table.add_row(*map(Text, row.cells()))
        Console(width=160).print(table)

    def write(self, name: str, page: Path = PAGE) -> None:
        """Replace the rows of what was tried in the table `name` of the page; others stay, for a part may be run alone.

        Raises ValueError where the page has no place for it.
        """
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = page.read_text(encoding="utf-8")
        found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
        if found is None:
            raise ValueError(f"{page}: has no {begin.strip()} with its end")
        rows = {_key(line): line for line in found.group().splitlines() if line.startswith("| ")}
        rows |= {_key(line): line for line in (_line(row.cells()) for row in self.rows)}
        heads = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
        table = "\n".join([*heads, *(line for line in rows.values() if line not in heads)])
        with replaced_when_whole(page) as part:
            part.write_text(
                f"{text[: found.start()]}{begin}\n{_where()}\n\n{table}\n\n{end}{text[found.end() :]}", encoding="utf-8"
            )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _key(line: str) -> tuple[str, ...]:
    """What a row is of: harm, and what it was tried with."""
    return tuple(line.split(" | ")[:2])


def _where() -> str:
    own = machine()
    return f"{own['cpu']}, {own['cores']} cores, {own['memory_gb']:g} GB, {own['system']}."
