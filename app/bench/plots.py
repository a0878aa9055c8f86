"""Pictures of what grows with what."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from app.bench.book import Row
from app.report import empty_figure
from streams.files import replaced_when_whole


def check_plots() -> None:
    """Raise ValueError where nothing can be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install 'velora-rgbe[train]'")


def draw(folder: Path, rows: Sequence[Row]) -> None:
    """A PNG for each kind of rows, whose spread is a band. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(str(row.what["what"]) for row in rows):
        _line(folder, kind, [row for row in rows if row.what["what"] == kind])


def _line(folder: Path, kind: str, rows: Sequence[Row]) -> None:
    name = next(iter(rows[0].figures))
    values = [int(str(row.what["value"])) for row in rows]
    bands = [row.spread[name] for row in rows]
    figure = empty_figure(6, 4)
    axis = figure.add_subplot()
    axis.plot(values, [row.figures[name] for row in rows], "o-")
    axis.fill_between(values, [low for low, _ in bands], [high for _, high in bands], alpha=0.3)
    axis.set(xlabel=kind, ylabel=name.replace("_", " "), ylim=(0, None))
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, [str(value) for value in values])
    axis.grid(alpha=0.3)
    axis.set_title(f"{rows[0].what['model']}: {kind}")
    with replaced_when_whole(folder / f"cost-{re.sub('[^A-Za-z0-9]+', '-', kind)}.png") as part:
        figure.savefig(part, format="png", dpi=100)
