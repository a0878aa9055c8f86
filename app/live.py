"""`velora live`: the labels of a live source; headless, as `replay` prints them, else on the page."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from app.cli_options import open_feed
from app.demo import watch
from app.model import load_model, render_config, window_stride
from app.record import Labels
from app.replay import JsonLines, LiveTable, Tally, closing, losses
from streams import LATEST, Live, RunSummary, Sink, StreamError, run
from streams.record import Tee


def live(arguments: argparse.Namespace) -> int:
    """Run until interrupted. Raises StreamError and ModelError."""
    if not arguments.headless:
        return watch(arguments)
    recognizer = load_model(arguments)
    with open_feed(arguments, arguments.source) as source:
        if not source.live:
            raise StreamError(f"{arguments.source} is a recording: velora replay reads it")
        stride = arguments.stride or window_stride(recognizer, source)
        tee = Tee(source)
        samples, tally, summary = Live(tee, render=render_config(recognizer)), Tally(), RunSummary()
        with ExitStack() as stack:
            shown = JsonLines() if arguments.json else LiveTable(recognizer, arguments.source, stride)
            sinks: list[Sink] = [tally, stack.enter_context(shown)]
            if arguments.record is not None:
                tee.start(arguments.record)
                sinks.append(stack.enter_context(Labels(arguments.record)))
            try:
                run(
                    samples,
                    recognizer,
                    sinks=sinks,
                    policy=LATEST,
                    stride=stride,
                    hop=arguments.hop,
                    summary=summary,
                    max_lag_ms=arguments.max_lag_ms,
                )
            except KeyboardInterrupt:
                samples.stop()
        recorded = tee.stop()
    if recorded is not None:
        print(recorded, file=sys.stderr)
    lines = closing(tally, summary, samples.counts, recognizer, stride)
    for line in [*lines, *(f"not recognised, {reason}" for reason in losses(summary.drops))]:
        print(line, file=sys.stderr)
    return 130
