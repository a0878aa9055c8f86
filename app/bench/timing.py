"""Works that take turns, so that a busy moment of the machine is fair to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from app.bench.book import Book, Stopped

if TYPE_CHECKING:
    import torch

Work = Callable[[], object]


def alternate(
    works: Mapping[str, Work],
    rounds: int,
    book: Book,
    *,
    fewer: Mapping[str, int] | None = None,
    warm: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each work, in turns, every second round backwards; `warm` rounds before them do not count.

    `fewer` says which slow works take part in so many of the rounds only. Stopped by somebody, it makes do with the
    rounds that it has; raises Stopped where these are none.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    try:
        for k in range(-warm, rounds):
            for name in list(works)[:: 1 if k % 2 == 0 else -1]:
                most = min((fewer or {}).get(name, rounds), rounds)
                if k < 0 or k in _chosen(rounds, most):
                    book.heed()
                    took = timed(works[name])
                    if k >= 0:
                        seconds[name].append(took)
    except Stopped:
        if not all(seconds.values()):
            raise
    return seconds


def timed(work: Work) -> float:
    """Seconds that a work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def finished(device: torch.device, work: Work) -> Work:
    """The work, and a wait until the device has done it."""
    if device.type == "cpu":
        return work
    import torch

    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        else:
            torch.mps.synchronize()

    return whole


def _chosen(rounds: int, count: int) -> set[int]:
    """`count` of the rounds, spread evenly."""
    return {k * rounds // count for k in range(count)}
