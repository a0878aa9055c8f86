"""How a training run goes: a live line on a terminal, a line a minute where stderr is none, as under `nohup`,
TensorBoard's log, and with `--json` an object a line on stdout.

    {"phase": "reading", "split": "train", "step": 3, "steps": 24}        clips that are read
    {"phase": "starting", "nearest_class_mean": 0.56}                     before the first step
    {"phase": "training", "step": 7, "steps": 90, "loss": …, "accuracy": …, "validation": …, "seconds_left": …}
    {"phase": "finishing"}                                                the last look at validation
    {"phase": "done", "out": …, "validation_top1": …, "nearest_class_mean": …, "steps": …, "minutes": …}

`validation` is the last one's share of right windows, null before it; `validation_top1` that of what was written.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from app.tensorboard_log import TensorBoardLog
from velora.training.trainer import Progress, Trainer

_EVERY_S = 60.0  # a line, where it is not a live one


class Told:
    """Writes what happens to stdout as JSON lines, or nothing."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def say(self, phase: str, **more: Any) -> None:
        """One line."""
        if self.wanted:
            print(json.dumps({"phase": phase, **more}, ensure_ascii=False), flush=True)

    def reading(self, split: str) -> Callable[[int, int], None]:
        """What hears how many clips of how many have been read."""
        return lambda step, steps: self.say("reading", split=split, step=step, steps=steps)

    def training(self, run: Trainer) -> None:
        """After a step."""
        progress = run.progress
        self.say(
            "training",
            step=progress.step,
            steps=progress.steps,
            epoch=progress.epoch,
            loss=progress.loss,
            accuracy=progress.accuracy,
            validation=progress.val_accuracy,
            rate=progress.rate,
            clips_s=progress.clips_s,
            seconds_left=_left_s(run),
        )


class Lines:
    """Writes a line a minute to stderr where no live one is seen there."""

    def __init__(self, wanted: bool) -> None:
        self._due = time.monotonic() + _EVERY_S if wanted else math.inf

    def say(self, text: str) -> None:
        """One line, if the last is a minute old."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _EVERY_S
            print(text, file=sys.stderr, flush=True)


@contextmanager
def watching(run: Trainer, out: Path, told: Told) -> Iterator[Callable[[Progress], None]]:
    """What hears of every step, and tells."""
    if not run.accelerator.is_main_process:
        yield lambda progress: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    log, console = _log(out), Console(stderr=True)
    lines = Lines(wanted=not console.is_terminal and not told.wanted)
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("training", total=1.0)

        def hear(progress: Progress) -> None:
            text = _line(progress)
            bar.update(task, completed=progress.spent, description=text)
            told.training(run)
            lines.say(f"step {progress.step} of {progress.steps}, {text}{_left(run)}")
            if log is not None:
                log.add(progress.step, _scalars(progress))

        try:
            yield hear
        finally:
            if log is not None:
                log.close()


def memory_gb() -> float:
    """The most that was in use so far, of the GPU's memory or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def _left_s(run: Trainer) -> float | None:
    """How long the rest takes, as what is behind did."""
    spent = run.progress.spent
    return run.spent_s * (1 - spent) / spent if spent else None


def _line(progress: Progress) -> str:
    val = "" if progress.val_accuracy is None else f", validation {progress.val_accuracy:.1%}"
    return (
        f"epoch {progress.epoch:.1f}: loss {progress.loss:.3f}, accuracy {progress.accuracy:.1%}{val}, "
        f"{progress.clips_s:.1f} clips/s, {memory_gb():.1f} GB"
    )


def _left(run: Trainer) -> str:
    left_s = _left_s(run)
    return "" if left_s is None else f", {left_s / 60:.0f} min left"


def _log(out: Path) -> TensorBoardLog | None:
    try:
        return TensorBoardLog(out / "tensorboard")
    except ImportError:  # the extra `train`
        return None


def _scalars(progress: Progress) -> Mapping[str, float]:
    scalars = {"loss": progress.loss, "accuracy": progress.accuracy, "rate": progress.rate, **progress.parts}
    if progress.val_accuracy is not None and progress.val_loss is not None:
        scalars |= {"val/accuracy": progress.val_accuracy, "val/loss": progress.val_loss}
    return scalars
