"""What the processes of a pool have in common."""

from __future__ import annotations

import multiprocessing
import os
import threading

from streams.endings import FROM_TERMINALS, ignore


def be_a_worker() -> None:
    """In a worker: Ctrl-C is for the parent, which lets it finish what it is at; and it ends when the parent has gone.

    The processes of a pool whose parent was killed would wait for work for ever.
    """
    ignore(FROM_TERMINALS)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
