"""`velora live`: the labels of a live source; headless, as `replay` prints them, else on the page."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from app.demo import watch
from app.feed import losses, open_feed, stopping, telling
from app.model import leave_a_core, load_model, render_config, window_stride
from app.recorder import Recorder
from app.replay import JsonLines, LiveTable, Tally, closing
from streams import LATEST, Live, RunSummary, StreamError, run
from streams.record import Tee
from velora import Recognizer

#: what is given for the page alone, and its option
_OF_THE_PAGE = {
    "record_to": "--record-to",
    "port": "--port",
    "names": "--name",
    "auth": "--auth",
    "allow": "--allow",
    "allow_uri": "--allow-uri",
    "share": "--share",
}


def live(arguments: argparse.Namespace) -> int:
    """Run until interrupted. Raises StreamError and ModelError."""
    if not arguments.headless:
        odd = [name for name in ("json", "record", "hop") if getattr(arguments, name)]
        if odd:
            raise ValueError(f"--{odd[0]} needs --headless: the page has none")
        return watch(arguments)
    if odd := [option for name, option in _OF_THE_PAGE.items() if getattr(arguments, name)]:
        raise ValueError(f"{odd[0]} is of the page: leave --headless out (--record FILE records)")
    with open_feed(arguments, arguments.source) as source:
        if not source.live:
            raise StreamError(f"{arguments.source} is a recording: velora replay reads it")
        recognizer = load_model(arguments)
        leave_a_core()
        return _headless(arguments, Tee(source), recognizer)


def _headless(arguments: argparse.Namespace, tee: Tee, recognizer: Recognizer) -> int:
    stride = arguments.stride or window_stride(recognizer, tee)
    samples, tally, summary = Live(tee, render=render_config(recognizer)), Tally(), RunSummary()
    recorder = Recorder(tee)
    with ExitStack() as stack:
        stack.callback(_tell, tee, recorder, tally, summary, recognizer, stride)
        shown = JsonLines() if arguments.json else LiveTable(recognizer, arguments.source, stride, lambda: tee.warning)
        sinks = [tally, recorder, stack.enter_context(shown)]
        if arguments.record is not None:
            recorder.start(arguments.record)
        if arguments.json:  # the table shows it
            stack.enter_context(telling(tee))
        interrupt = stack.enter_context(stopping(samples.stop))
        run(
            samples,
            recognizer,
            sinks=sinks,
            policy=LATEST,
            stride=stride,
            hop=arguments.hop or 1,
            summary=summary,
            max_lag_ms=arguments.max_lag_ms,
        )
    if recorder.failed:
        return 1
    return 130 if interrupt.asked else 0


def _tell(tee: Tee, recorder: Recorder, tally: Tally, summary: RunSummary, recognizer: Recognizer, stride: int) -> None:
    """What was recorded, and the closing summary."""
    lines = [*recorder.stop(), *closing(tally, summary, tee.counts, recognizer, stride)]
    for line in [*lines, *(f"not recognised, {reason}" for reason in losses(summary.drops))]:
        print(line, file=sys.stderr)
