"""What labels recordings, as the command sees it: a labeller of this process, or a cluster of them.

Either takes recordings and gives notes, in the order in which they are finished. The command alone keeps the books.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.labelling.inputs import Recording
from app.labelling.notes import Note
from app.labelling.settings import Settings
from streams.cores import usable_cores


@dataclass(frozen=True, slots=True)
class Digests:
    """What labels were made with."""

    model: str
    settings: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the books say of a labeller."""

    digests: Digests
    model: Mapping[str, Any]  # its name, device, labels and so on
    batch: int  # samples in a step
    engine: Mapping[str, Any]


@dataclass
class Headway:
    """What has been done so far; read it at any time."""

    events: int = 0
    recorded_us: int = 0
    shares: dict[Recording, float] = field(default_factory=dict)  # of the recordings at hand, how far each one is


class Engine(Protocol):
    """A context manager: leaving it ends all that it has started. Use it from one thread; `stop` is for any."""

    settings: Settings
    headway: Headway
    model_s: float  # spent in the model, by all labellers together

    @property
    def facts(self) -> Facts: ...

    def label_all(self, recordings: Sequence[Recording], told: Callable[[], object] = lambda: None) -> Iterator[Note]:
        """A note for each recording, once its files are whole. What is not finished when it ends is dropped.

        `told` is called now and then, also while no recording is finished.
        """
        ...

    def stop(self) -> None:
        """Let `label_all` end soon: what is at hand is dropped, what is finished stays."""
        ...


def engine_for(arguments: argparse.Namespace, settings: Settings) -> AbstractContextManager[Engine]:
    """The engine that the options of `velora label` ask for.

    Raises ModelError, and ValueError for settings that do not fit, a library that is missing, and a cluster that cannot
    be reached.
    """
    if arguments.engine == "ray":
        from app.labelling.cluster import Cluster
        from app.labelling.ray_driver import Wanted

        return Cluster(settings, Wanted(arguments.jobs, arguments.address, arguments.pool, arguments.num_gpus))
    from app.labelling.labeller import Labeller

    return Labeller(settings, arguments.jobs or default_jobs())


def default_jobs() -> int:
    """Processes that read ahead: one less than there are cores."""
    return max(1, usable_cores() - 1)
