"""`velora record`: a live source, or another recording, to AEDAT 4; with `--model` also what was recognised."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.live import Live as Display
from rich.text import Text

from app.feed import losses, open_feed, stopping
from app.model import leave_a_core, load_model, render_config, window_stride
from app.recorder import Recorder
from streams import EVERY, LATEST, Gap, Live, Source, run, synchronize
from streams.record import Tee
from velora import Recognizer


def record(arguments: argparse.Namespace) -> int:
    """Record until the source ends, for `--seconds`, or until interrupted. Raises StreamError and ModelError."""
    recognises = arguments.model is not None or arguments.labels is not None
    if not recognises and (arguments.weights is not None or arguments.random_weights):
        raise ValueError("--weights and --random-weights are of a model: --model names it")
    recognizer = load_model(arguments) if recognises else None
    frames = Path(arguments.rgb or "")  # that the source is not `out`, the recorder sees to
    if arguments.rgb and frames.exists() and arguments.out.exists() and arguments.out.samefile(frames):
        raise ValueError(f"{arguments.out} is what is to be recorded: choose another name")
    with open_feed(arguments, arguments.source) as source, ExitStack() as stack:
        tee = Tee(source)
        recorder, progress = Recorder(tee), Progress(tee, arguments.seconds)
        recorder.start(arguments.out, replace=arguments.force, labels=recognizer is not None)
        stack.callback(_tell, tee, recorder)
        with progress, _ending(source, arguments.seconds), stopping(progress.interrupt):
            if recognizer is None:
                for item in tee:
                    if progress.is_over(None if isinstance(item, Gap) else item.t_end_us):
                        break
            else:
                _recognise(tee, recognizer, recorder, progress)
    if recorder.failed:
        return 1
    return 130 if progress.interrupted else 0


def _tell(tee: Tee, recorder: Recorder) -> None:
    """Finish the files, and say what is in them."""
    for line in [*recorder.stop(), *losses(tee.counts)]:
        print(line, file=sys.stderr)


@contextmanager
def _ending(source: Source, seconds: float | None) -> Iterator[None]:
    """End a live source after a time, also one that says nothing."""
    if seconds is None or not source.live:
        yield
        return
    timer = threading.Timer(seconds, source.close)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _recognise(tee: Tee, recognizer: Recognizer, recorder: Recorder, progress: Progress) -> None:
    leave_a_core()
    stride, render = window_stride(recognizer, tee), render_config(recognizer)
    samples = Live(tee, render=render) if tee.live else synchronize(tee, render=render)
    wanted = takewhile(lambda sample: not progress.is_over(sample.t_end_us), samples)
    run(wanted, recognizer, sinks=[recorder], policy=LATEST if tee.live else EVERY, stride=stride)


class Progress:
    """A line on the terminal that tells how the recording goes, and when it is over."""

    def __init__(self, tee: Tee, seconds: float | None) -> None:
        self._tee, self._seconds = tee, seconds
        self._display = Display(
            console=Console(stderr=True), get_renderable=self._told, refresh_per_second=4, transient=True
        )
        self._first_us: int | None = None
        self.interrupted = False

    def __enter__(self) -> Progress:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def interrupt(self) -> None:
        """Let it be over."""
        self.interrupted = True
        if self._tee.live:  # it may say nothing
            self._tee.source.close()

    def is_over(self, t_us: int | None) -> bool:
        """Whether the recording has become as long as it was to, has failed, or was interrupted."""
        if self.interrupted:
            return True
        if t_us is None or self._tee.recorded is None:
            return False
        self._first_us = t_us if self._first_us is None else self._first_us
        late = self._seconds is not None and t_us - self._first_us >= self._seconds * 1e6
        return late or bool(self._tee.recorded.failure)

    def _told(self) -> Text:
        recorded = self._tee.recorded
        if recorded is None:
            return Text("")
        warning = f" · {self._tee.warning}" if self._tee.warning and not recorded.failure else ""
        return Text(f"{time.strftime('%H:%M:%S', time.gmtime(recorded.seconds))} · {recorded}{warning}")
