"""Teaching a model new labels while the program goes on: `velora train` in a process of its own, watched and stoppable.

    teaching = Teaching(lessons, "demo", user_data_folder() / "models", "my-hands")
    teaching.state()            how it goes; also from other threads
    teaching.stop()             at any time

It starts from a checkpoint, whose adapters it keeps and trains on, with a head for the labels of the lessons. The
finished model takes its place in the folder in one piece; until then, and of one that was stopped, nothing is there.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.child import Child
from app.lessons import Lessons
from streams.files import remove_abandoned

#: of `velora train`, as benchmarks/teach.py found them: a gentle rate, from a head that knows the class means
OPTIONS: Sequence[str] = (
    *("--epochs", "4", "--max-minutes", "1.75", "--patience", "0", "--sampling", "mix", "--batch", "4"),
    *("--rate", "1e-3", "--warmup", "0.1", "--w-rec", "0", "--drop-modality", "0.1"),
)
_KEPT = ("config.json", "adapter.safetensors", "README.md", "training.json", "summary.json")
_LONGEST_NAME = 80
_WORK = ".teaching-"


@dataclass(frozen=True, slots=True)
class TeachingState:
    """How it goes."""

    phase: str = "starting"  # reading, training, finishing; done, failed, stopped
    step: int = 0  # of training, or clips that were read
    steps: int = 0
    loss: float | None = None
    accuracy: float | None = None  # of clips that are trained on, 0..1
    validation: float | None = None  # of clips that are held out
    nearest_class_mean: float | None = None  # of the same, by the model as it was
    seconds_left: float | None = None
    message: str = "Starting"  # one line, for people
    model: Path | None = None  # the folder of the finished checkpoint

    @property
    def over(self) -> bool:
        """Whether nothing will change any more."""
        return self.phase in ("done", "failed", "stopped")


class Teaching:
    """One run; every call may come from any thread.

    Raises ValueError, one line, for too few clips, and for a name that is none or is taken; OSError.
    """

    def __init__(
        self,
        lessons: Lessons,
        base: str | Path,
        out_folder: Path,
        name: str,
        *,
        weights: str | None = None,
        options: Sequence[str] = OPTIONS,
    ) -> None:
        if why := lessons.untaught():
            raise ValueError(why)
        self._target = out_folder / _checked(name)
        if self._target.exists():
            raise ValueError(f"there is a model {name} already: choose another name")
        out_folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(out_folder, _WORK)
        self._state = TeachingState()
        self._asked_to_stop = False
        with ExitStack() as stack:
            self._work = Path(tempfile.mkdtemp(prefix=_WORK, dir=out_folder))
            stack.callback(shutil.rmtree, self._work, ignore_errors=True)
            stack.enter_context(lessons.in_use())
            line = ["train", "--json", "--from", str(base), "--new-labels", "--data", str(lessons.folder)]
            line += ["--cache", str(lessons.cache), "--out", str(self._part), *options]
            self._child = Child(line + (["--weights", weights] if weights else []))
            self._until_over = stack.pop_all()
        self._thread = threading.Thread(target=self._watch, name="teaching", daemon=True)
        self._thread.start()

    def state(self) -> TeachingState:
        """How it goes now."""
        return self._state

    def stop(self) -> None:
        """Let it end soon, without waiting for it. Nothing of it is kept."""
        self._asked_to_stop = True
        self._child.stop()

    def wait(self, timeout_s: float) -> bool:
        """Whether it is over, at the latest after so long."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def _part(self) -> Path:
        return self._work / self._target.name

    def _watch(self) -> None:
        with self._until_over:
            try:
                self._state = self._ended(self._listen())
            except Exception as error:  # of the disk
                self._state = replace(self._state, phase="failed", message=" ".join(str(error).split()))

    def _listen(self) -> int:
        """Take in what the process says, to its end; its exit code."""
        for said in self._child.said():
            with suppress(TypeError, KeyError):  # a library's word
                self._state = _after(self._state, said)
        return self._child.wait()

    def _ended(self, code: int) -> TeachingState:
        state = replace(self._state, seconds_left=None)
        if code == 0:
            for path in self._part.iterdir():
                if path.name not in _KEPT:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self._part.rename(self._target)
            return replace(state, phase="done", message=_praise(state), model=self._target)
        if self._asked_to_stop:
            return replace(state, phase="stopped", message="Stopped")
        return replace(state, phase="failed", message=self._child.reason())


def _checked(name: str) -> str:
    plain = name.isprintable() and name == name.strip() and not set(name) & set('/\\:*?"<>|')
    if not plain or name.startswith(".") or not 1 <= len(name) <= _LONGEST_NAME:
        raise ValueError(f"a model's name has 1 to {_LONGEST_NAME} characters, none of them / or \\: {name[:40]!r}")
    return name


def _after(state: TeachingState, said: Mapping[str, Any]) -> TeachingState:
    """The state after a line of `velora train --json`."""
    match said["phase"]:
        case "reading":
            step, steps = said["step"], said["steps"]
            return replace(state, phase="reading", step=step, steps=steps, message=f"Reading clips: {step} of {steps}")
        case "starting":
            mean = said["nearest_class_mean"]
            return replace(state, phase="starting", step=0, steps=0, nearest_class_mean=mean, message="Starting")
        case "training":
            names = ("step", "steps", "loss", "accuracy", "validation", "seconds_left")
            more = {name: said[name] for name in names}
            return replace(state, phase="training", message=f"Learning: step {said['step']} of {said['steps']}", **more)
        case "finishing":
            return replace(state, phase="finishing", seconds_left=None, message="Finishing")
        case "done":
            return replace(state, validation=said["validation_top1"], nearest_class_mean=said["nearest_class_mean"])
    return state


def _praise(state: TeachingState) -> str:
    if state.validation is None:
        return "Done; no clip was held out to see how good it is"
    before = f", {state.nearest_class_mean:.0%} before" if state.nearest_class_mean is not None else ""
    return f"Done: right in {state.validation:.0%} of the clips that were held out{before}"
