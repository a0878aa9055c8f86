"""`velora align`: the offset between the frames of one camera and the events of another one, from a waved hand.

velora align dv: --rgb webcam:0
velora align hand.raw --rgb hand.mp4
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.feed import SOURCE_OPTIONS, losses, stopping, telling
from streams import Source, open_source
from streams.align import BIN_US, Activity, Alignment, Curve, events_in
from streams.files import reason, replaced_when_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURE = Path("align.png")
_BLUE, _ORANGE = "#0072B2", "#E69F00"  # Okabe and Ito's


def align_command(arguments: argparse.Namespace) -> int:
    """Listen, and tell the offset: 0, or 1 where it is not sure. Raises StreamError, ValueError and NoMatplotlib."""
    if arguments.out is not None:
        _empty()  # not only after the hand was waved
    given = {name: getattr(arguments, name, None) for name in SOURCE_OPTIONS}
    with open_source(arguments.events, rgb=arguments.rgb, rgb_fps=arguments.rgb_fps, **given) as source:
        activity, interrupted = _listened(source, arguments.seconds)
    for line in losses(source.counts):
        print(line, file=sys.stderr)
    if interrupted:
        return 130
    found = activity.align()
    if not arguments.json:
        print(_told(found), flush=True)  # first of all: whoever waved does not want to wave again
    picture = _picture(arguments.out, found)
    if arguments.json:
        print(json.dumps(_as_json(found) | {"picture": None if picture is None else str(picture)}))
    return 0 if found.offset_us is not None else 1


def _listened(source: Source, wanted_s: float) -> tuple[Activity, bool]:
    """What went on in both feeds for some seconds, or until they ended; and whether somebody interrupted it."""
    activity = Activity()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    # A live source that is closed ends; of a recording the next item asks.
    with stopping(source.close if source.live else lambda: None) as interrupt, telling(source), bar:
        task = bar.add_task("wave a hand" if source.live else "reading", total=wanted_s)
        for item in source:
            if interrupt.asked:
                break
            activity.push(item)
            bar.update(task, completed=min(activity.seconds, wanted_s))
            if activity.seconds >= wanted_s:
                break
    return activity, interrupt.asked


def _told(found: Alignment) -> str:
    if found.offset_us is None:
        return f"unsure: {found.reason}; wave a hand before both cameras, now fast, now slow, or give more --seconds"
    return f"{_option(found.offset_us)}    (correlation {found.correlation:.2f}; next best {found.second:.2f})"


def _option(offset_us: float) -> str:
    return f"--rgb-offset-ms {_ms(offset_us):g}"


def _ms(time_us: float) -> float:
    return round(time_us / 1e3, 1) + 0.0  # no -0


def _as_json(found: Alignment) -> dict[str, Any]:
    sure = found.offset_us is not None
    return {
        "sure": sure,
        "offset_ms": None if found.offset_us is None else _ms(found.offset_us),
        "option": None if found.offset_us is None else _option(found.offset_us),
        "reason": found.reason,
        "correlation": round(found.correlation, 4),
        "second": round(found.second, 4),
        "frames": len(found.energy),
        "events": int(found.events.sum()),
    }


def _picture(out: Path | None, found: Alignment) -> Path | None:
    """Write it; where it cannot be, that is only said, unless matplotlib lacks for one that was asked for."""
    from app.report import NoMatplotlib

    try:
        figure = _drawn(found)
    except NoMatplotlib as error:
        if out is not None:
            raise
        print(f"velora: no picture: {error}", file=sys.stderr)
        return None
    path = out or _PICTURE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(path) as part:
            figure.savefig(part, format="png", dpi=100)
    except OSError as error:
        print(f"velora: no picture: {path} cannot be written: {reason(error)}", file=sys.stderr)
        return None
    print(path, file=sys.stderr)
    return path


def _drawn(found: Alignment) -> Figure:
    """Both curves before, both after, and the correlation at each lag."""
    figure = _empty()
    before, after, lags = figure.subplots(3, 1)
    sure = found.offset_us is not None
    _curves(before, found, 0.0, "As they came")
    said = f"Frames {_ms(found.best_us):+g} ms" + ("" if sure else f" — unsure: {found.reason}")
    _curves(after, found, found.best_us, said)
    lags.plot(found.lags_us / 1e3, found.correlations, color="black", lw=1)
    lags.axvline(found.best_us / 1e3, color=_ORANGE, ls="-" if sure else ":")
    lags.set(xlabel="offset of the frames, ms", ylabel="correlation", ylim=(-1, 1))
    return figure


def _curves(axis: Any, found: Alignment, lag_us: float, title: str) -> None:
    """Events and change, each as large as its largest, over the spans between frames."""
    spans = found.spans + lag_us
    origin, long = float(found.start_us), spans[:, 1] - spans[:, 0]
    at = (spans.mean(axis=1) - origin) / 1e6
    edges = np.arange(len(found.events) * BIN_US // 20_000 + 1) * 20_000.0 + origin
    steps = np.stack([edges[:-1], edges[1:]], axis=1)
    rate = events_in(steps, found.start_us, found.events)
    axis.plot((steps.mean(axis=1) - origin) / 1e6, _of_one(rate), color=_BLUE, lw=1, label="events")
    axis.plot(at, _of_one(found.energy / long), color=_ORANGE, lw=1, label="change of the frames")
    axis.set(title=title, xlabel="seconds", yticks=[])
    axis.legend(fontsize=8, loc="upper right")


def _of_one(values: Curve) -> Curve:
    largest = float(np.nanmax(values)) if len(values) and not np.isnan(values).all() else 0.0
    return values / largest if largest > 0 else values


def _empty() -> Figure:
    """Raises NoMatplotlib."""
    from app.report import empty_figure

    return empty_figure(9, 8)
