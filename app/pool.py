"""Processes that work for a command, and how they end."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from streams.endings import FROM_TERMINALS, end_with_parent, ignore

GRACE_S = 5.0  # for what processes are at when the command is to end


def be_a_worker() -> None:
    """In a worker: Ctrl-C is for the parent, which lets it finish what it is at; it ends when the parent has gone."""
    ignore(FROM_TERMINALS)
    end_with_parent()


@contextmanager
def pool_of(workers: int, prepare: Callable[[], None] = be_a_worker) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many processes, each of which calls `prepare` first.

    Where something is raised inside, as by Ctrl-C, they finish what they are at, and what takes long is given up.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=prepare) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end([child for child in multiprocessing.active_children() if child not in others])
            raise


def _end(processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Wait a moment for processes, and for none after another Ctrl-C."""
    until = time.monotonic() + GRACE_S
    try:
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.join()
