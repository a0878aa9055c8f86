"""What was found: rows of figures with their spread, and what was left out, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["done", "failed", "left out", "interrupted"]


class Stopped(Exception):
    """Somebody wants it to end."""


class Row:
    """Figures of one thing that was measured. A figure is a median, its spread the quartiles."""

    def __init__(self, **what: str | int | float | bool | None) -> None:
        self.what = what
        self.figures: dict[str, float] = {}
        self.spread: dict[str, tuple[float, float]] = {}
        self._values: dict[str, NDArray[np.float64]] = {}

    def add(self, name: str, values: Sequence[float]) -> None:
        """A figure that was measured several times. Raises ValueError where it was not once."""
        if not len(values):
            raise ValueError(f"nothing was measured of {name}")
        self._values[name] = own = np.asarray(values, np.float64)
        self.figures[name] = float(np.median(own))
        low, high = np.percentile(own, [25, 75])
        self.spread[name] = float(low), float(high)

    def milliseconds(self, name: str, seconds: Sequence[float]) -> None:
        """A time."""
        self.add(name, [1e3 * s for s in seconds])

    def rate(self, name: str, amount: float, seconds: Sequence[float]) -> None:
        """An amount a second."""
        self.add(name, [amount / s for s in seconds])

    def ratio(self, name: str, over: str, under: str) -> None:
        """The quotient of two figures of this row; its spread is that of the pairs, where they are as many."""
        self.figures[name] = self.figures[over] / self.figures[under]
        a, b = self._values.get(over), self._values.get(under)
        if a is not None and b is not None and len(a) == len(b):
            low, high = np.percentile(a / b, [25, 75])
            self.spread[name] = float(low), float(high)

    def as_json(self) -> dict[str, Any]:
        """What, figures, and by their names their spread and how often they were measured."""
        spread = {name: list(pair) for name, pair in self.spread.items()}
        turns = {name: len(values) for name, values in self._values.items()}
        return {**self.what, **self.figures, "spread": spread, "turns": turns}


@dataclass
class Book:
    """Of one group. `told` hears what is going on; `asked_to_stop` says whether it should end."""

    told: Callable[[str], object] = lambda text: None
    asked_to_stop: Callable[[], bool] = lambda: False
    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    status: Status = "done"
    reason: str = ""
    seconds: float = 0.0

    def row(self, **what: str | int | float | bool | None) -> Row:
        """A new row, to be filled."""
        self.rows.append(Row(**what))
        return self.rows[-1]

    def leave_out(self, what: str, why: str) -> None:
        """Something cannot be measured here, or not in a hurry."""
        self.left_out[what] = why

    def doing(self, text: str) -> None:
        """Say what comes next. Raises Stopped where it should not."""
        self.heed()
        self.told(text)

    def heed(self) -> None:
        """Raise Stopped where somebody wants it to end."""
        if self.asked_to_stop():
            raise Stopped

    def as_json(self) -> dict[str, Any]:
        """For programs. Rows that were begun and hold nothing are left out."""
        rows = [row.as_json() for row in self.rows if row.figures]
        told: dict[str, Any] = {"status": self.status, "seconds": round(self.seconds, 1)}
        if self.reason:
            told["reason"] = self.reason
        return told | {"rows": rows, "left_out": self.left_out}
