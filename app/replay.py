"""`velora replay`: the predictions of one recording, as a live table for people or as JSON lines for programs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.console import Console
from app.feed import losses, open_feed, stopping
from app.model import load_model, random_note, render_config, window_stride
from streams import EVERY, Player, RecordingError, RunSummary, Sample, Sink, StreamError, run
from streams.filters import NOISE
from streams.text import storable
from velora import Prediction, Recognizer

_ROWS = 12
_REMEMBERED = 100_000  # latencies, of which the closing summary tells


def replay(arguments: argparse.Namespace) -> int:
    """Run the recording once through the model. Raises RecordingError and ModelError."""
    opened = partial(open_feed, arguments)
    with opened(arguments.source) as source:  # bad files are named before the model is loaded
        if source.live:
            raise StreamError(f"{arguments.source} is live: velora live --headless prints its labels")
        recognizer = load_model(arguments)
        stride = arguments.stride or window_stride(recognizer, source)
    player = Player(arguments.source, render=render_config(recognizer), speed=arguments.speed, opened=opened)
    tally, summary = Tally(), RunSummary()
    with (
        JsonLines() if arguments.json else LiveTable(recognizer, player.uri, stride) as shown,
        stopping(player.stop) as interrupt,
    ):
        run(
            player,
            recognizer,
            sinks=[tally, shown],
            policy=EVERY,
            stride=stride,
            hop=arguments.hop,
            summary=summary,
        )
    if summary.samples == 0 and not interrupt.asked:
        lost = ", ".join(losses(player.counts))
        raise RecordingError(f"{arguments.source}: nothing in it can be read ({lost}); record or copy it again")
    for line in closing(tally, summary, player.counts, recognizer, stride):
        print(line, file=sys.stderr)
    if interrupt.asked:
        return 130
    damaged = any(count and reason != NOISE for reason, count in player.counts.items())
    return 1 if arguments.strict and damaged else 0


class Tally(Sink):
    """What the closing summary counts."""

    def __init__(self) -> None:
        self.events = 0
        self.latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self.started = time.perf_counter()

    def on_sample(self, sample: Sample) -> None:
        self.events += len(sample.events)

    def on_prediction(self, prediction: Prediction) -> None:
        self.latencies.append(sum(prediction.latency_ms.values()))

    @property
    def seconds(self) -> float:
        """Wall time since the start."""
        return time.perf_counter() - self.started


def closing(tally: Tally, summary: RunSummary, counts: Counter[str], recognizer: Recognizer, stride: int) -> list[str]:
    """The summary, a line each: amounts and rates, latency, what was skipped and why."""
    rate = 1 / max(tally.seconds, 1e-9)
    lines = [
        f"{summary.samples} samples, {summary.predictions} labels in {tally.seconds:.1f} s: "
        f"{tally.events * rate:,.0f} events/s, {summary.samples * rate:.1f} frames/s"
    ]
    if tally.latencies:
        p50, p95 = np.percentile(tally.latencies, [50, 95])
        lines.append(f"latency of a label (decode, render, encode, fuse): p50 {p50:.1f} ms, p95 {p95:.1f} ms")
    else:
        lines.append(_why_no_label(summary.samples, recognizer.config.frames, stride))
    return lines + losses(counts)


def _why_no_label(samples: int, frames: int, stride: int) -> str:
    needed = (frames - 1) * stride + 1
    fix = f"; try --stride {max((samples - 1) // max(frames - 1, 1), 1)}" if samples >= frames and stride > 1 else ""
    return f"no label: a window of {frames} frames at stride {stride} needs {needed} samples without a gap{fix}"


class JsonLines(Sink):
    """A prediction a line on stdout."""

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def on_prediction(self, prediction: Prediction) -> None:
        print(json.dumps(as_json(prediction), ensure_ascii=False), flush=True)


def as_json(prediction: Prediction) -> dict[str, object]:
    """A prediction as `replay --json` prints it; times in microseconds of the recording's clock."""
    return {
        "t_start_us": prediction.t_start_us,
        "t_end_us": prediction.t_end_us,
        "label": prediction.label,
        "confidence": round(prediction.confidence, 6),
        "topk": [[label, round(p, 6)] for label, p in prediction.topk],
        "latency_ms": {stage: round(ms, 3) for stage, ms in prediction.latency_ms.items()},
        "unsure": prediction.unsure,
        "model": prediction.model,
    }


class LiveTable(Sink):
    """The newest predictions as a table that keeps its place on the terminal."""

    def __init__(
        self, recognizer: Recognizer, source: object, stride: int, warning: Callable[[], str] = lambda: ""
    ) -> None:
        self._title = f"{storable(str(source))} · {recognizer.name} on {recognizer.device} · stride {stride}"
        self._note, self._warning = random_note(recognizer), warning
        self._rows: deque[Prediction] = deque(maxlen=_ROWS)
        self._start_us: int | None = None
        self._live = Live(console=Console(), get_renderable=self._render, refresh_per_second=8, transient=False)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_sample(self, sample: Sample) -> None:
        if self._start_us is None:
            self._start_us = sample.t_start_us

    def on_prediction(self, prediction: Prediction) -> None:
        self._rows.append(prediction)

    def _render(self) -> Group:
        table = Table(title=Text(self._title, style="italic"), title_justify="left", expand=False)
        table.add_column("time", justify="right")
        table.add_column("label")
        table.add_column("confidence", justify="right")
        table.add_column("")
        table.add_column("next", style="dim")
        for prediction in list(self._rows):
            table.add_row(*self._row(prediction))
        notes = [note for note in (self._note, self._warning()) if note]
        return Group(*(Text(note, style="bold yellow") for note in notes), table)

    def _row(self, prediction: Prediction) -> tuple[str, Text, str, ProgressBar, Text]:
        seconds = (prediction.t_end_us - (self._start_us or 0)) / 1e6
        runners_up = ", ".join(f"{label} {p:.0%}" for label, p in prediction.topk[1:3])
        bar = ProgressBar(total=1.0, completed=prediction.confidence, width=20)
        unsure = Text(f"unsure ({prediction.label})", style="dim")
        label = unsure if prediction.unsure else Text(prediction.label, style="bold")
        return (
            f"{seconds:.2f} s",
            label,
            f"{prediction.confidence:.0%}",
            bar,
            Text(runners_up),
        )
