"""The signals that ask a program to end: Ctrl-C, `kill`, and, where there is one, a terminal that is closed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker

#: `nohup` and background jobs ignore some of them, and mean it.
ENDINGS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Those that a terminal sends to a program's other processes, too, which leave them to the one that owns them.
FROM_TERMINALS = tuple(number for number in ENDINGS if number != signal.SIGTERM)


def heeded() -> list[signal.Signals]:
    """Those of `ENDINGS` that are not ignored."""
    return [number for number in ENDINGS if signal.getsignal(number) is not signal.SIG_IGN]


def ignore(signals: Sequence[signal.Signals]) -> None:
    """In a process that leaves these to its owner; in the main thread."""
    for number in signals:
        signal.signal(number, signal.SIG_IGN)


def end_with_parent() -> None:
    """In a process of `multiprocessing`: end when the one that started it has gone, also if it was gone before this.

    Else it would wait for work for ever.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def deaf_to(signals: Sequence[signal.Signals]) -> Iterator[None]:
    """Processes that are started inside never heed these: they are for their owner, who hears them a moment later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        resource_tracker.ensure_running()  # which, when it starts, lets some of them through again
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
