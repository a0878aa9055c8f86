"""Batches of windows, read beside the training by processes that leave Ctrl-C to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from streams.cores import usable_cores
from streams.endings import ENDINGS, deaf_to, end_with_parent, ignore
from velora.errors import ModelError


def loader_of(windows: Dataset[Any], places: Iterable[list[Any]], workers: int) -> DataLoader[Any]:
    """The windows at the places of one batch after the other, read by so many processes, or here where by none."""
    return DataLoader(
        windows,
        batch_sampler=places,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_begin,
    )


def read(loader: Iterable[Any]) -> Iterator[Any]:
    """Its batches. Raises ModelError for a clip whose frames cannot be read any more."""
    batches = iter(loader)
    try:
        with deaf_to(ENDINGS):  # the processes start here
            first = list(itertools.islice(batches, 1))
        yield from itertools.chain(first, batches)
    except OSError as error:  # with the traceback of another process in its words
        *_, last = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"frames of a clip cannot be read any more ({last[:300]}); the same command goes on, and makes them again"
        ) from None


def workers_for(device: torch.device, processes: int) -> int:
    """Processes that read windows: one core's worth keeps a CPU fed, a GPU wants more."""
    share = usable_cores() // processes
    if device.type == "cpu":
        return 1 if torch.get_num_threads() > 1 else 0
    return max(1, min(8, share - 1))


def _begin(_: int) -> None:
    """In such a process. torch's own look at its parent sees nothing where that was killed while this one started."""
    ignore(ENDINGS)
    end_with_parent()
