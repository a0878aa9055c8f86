"""Videos of many recordings, one after the other, with a progress bar; those that are there are left as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from app.film.encoder import check_av
from app.film.film import Film, beside, read_film
from app.film.make import Job, Look, Stopped, make_film
from streams import StreamError
from streams.files import GENERAL, in_words, reason
from streams.text import printable


@dataclass(frozen=True)
class Outcome:
    """How it went with a recording: its video, or why there is none."""

    job: Job
    film: Film | None = None
    made: bool = False  # now; otherwise it was there
    failure: str = ""


def make_films(
    jobs: Sequence[Job],
    look: Look,
    *,
    stopped: Callable[[], bool],
    force: bool = False,
    ours: bool = False,
) -> Iterator[Outcome]:
    """An outcome for each job, in turn, until `stopped`. A recording that cannot be read fails alone.

    A video that was not made here is replaced only by `force`, or where the folder is `ours`. Raises ValueError where
    PyAV is missing, and OSError where nothing more can be written.
    """
    check_av()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("rendering", total=len(jobs))
        for number, job in enumerate(jobs):
            if stopped():
                return
            bar.update(task, description=f"rendering {_short(job.name)}", completed=number)
            try:
                yield _outcome(job, look, partial(_move, bar, task, number), stopped, force, ours)
            except Stopped:
                return
        bar.update(task, completed=len(jobs))


def _move(bar: Progress, task: TaskID, number: int, share: float) -> None:
    bar.update(task, completed=number + share)


def _outcome(
    job: Job, look: Look, told: Callable[[float], object], stopped: Callable[[], bool], force: bool, ours: bool
) -> Outcome:
    try:
        found = None if force else there_already(job, look)
        if found is not None:
            return Outcome(job, found)
        _check_place(job, force or ours)
        return Outcome(job, make_film(job, look, told, stopped), made=True)
    except (StreamError, ValueError) as error:
        return Outcome(job, failure=str(error))
    except OSError as error:
        if not job.recording.exists():
            return Outcome(job, failure=f"{job.recording}: no such file; check the path")
        if error.errno in GENERAL:
            raise
        return Outcome(job, failure=in_words(error) if error.filename else f"{job.video}: {reason(error)}")


def there_already(job: Job, look: Look) -> Film | None:
    """The video of a job, where it is there and would look the same if it was made now. Raises OSError."""
    found = read_film(job.video)
    return found if found is not None and found.made_of == look.made_of(job.recording, job.rows) else None


def _check_place(job: Job, replace: bool) -> None:
    """Raise ValueError where a video must not be written."""
    if not job.video.exists():
        return
    if job.video.samefile(job.recording):
        raise ValueError(f"{job.video} is what is to be rendered: choose another name")
    if not replace and not beside(job.video).exists():
        raise ValueError(f"{job.video} is there already: choose another name, or --force to replace it")


def _short(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= 40 else f"…{shown[-39:]}"
