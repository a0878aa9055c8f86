"""The options of the commands that carry labels elsewhere: `velora render`, `velora export`, `velora report`."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

from app.cli_options import add_filters, add_within, seed

_MOST_FPS = 240
TOOLS = ("fiftyone", "label-studio", "elan", "csv")


def add_render(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora render`."""
    render = commands.add_parser(
        "render",
        help="recordings as MP4 videos, RGB and events side by side",
        description="Renders recordings as videos that browsers play (needs the extra `export`). A video that is there "
        "and would look the same is left as it is.",
        allow_abbrev=False,
    )
    render.add_argument("inputs", metavar="RECORDING", nargs="+", help="recordings, folders of them, or patterns")
    render.add_argument("--out", type=Path, required=True, metavar="FILE.mp4|DIR", help="a video, or a folder of them")
    render.add_argument("--labels", type=Path, metavar="FILE", help="to burn in (default: NAME.labels.csv beside NAME)")
    render.add_argument("--no-labels", action="store_true", help="burn none in")
    render.add_argument("--force", action="store_true", help="also what is there already")
    _add_look(render)
    add_filters(render)
    render.set_defaults(command=_render)


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora export`."""
    export = commands.add_parser(
        "export",
        help="labels of `velora label`, with videos, for annotation tools",
        description="Writes the labels as they are now, corrections included, in the format that a tool imports, and a "
        "video of each recording. README.txt in the output says how to import it.",
        allow_abbrev=False,
    )
    export.add_argument("folder", metavar="DIR", type=Path, help="what `velora label --out DIR` has written")
    export.add_argument("--to", choices=TOOLS, required=True, help="the tool")
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder, or one of an export before"
    )
    export.add_argument("--no-video", action="store_true", help="labels alone")
    export.add_argument("--json", action="store_true", help="progress as JSON objects, one a line, on stdout")
    _add_recordings(export)
    add_within(export)
    _add_look(export)
    export.set_defaults(command=_export)


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora report`."""
    report = commands.add_parser(
        "report", help="labels of `velora label` as one HTML page: counts, timelines, doubts", allow_abbrev=False
    )
    report.add_argument("folder", metavar="DIR", type=Path, help="what `velora label --out DIR` has written")
    report.add_argument("--out", type=Path, metavar="FILE", help="the page (default: report.html in DIR)")
    report.add_argument(
        "--doubts", type=seed, default=24, metavar="N", help="least certain spans to show (default: %(default)s)"
    )
    _add_recordings(report)
    report.set_defaults(command=_report)


def _add_look(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--panes", metavar="NAMES", help="rgb, events, motion, with commas (default: rgb,events)")
    parser.add_argument("--fps", type=rate, metavar="HZ", help="pictures a second (default: the recording's pace)")


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recordings", type=Path, metavar="ROOT", help="look for recordings below, where they have moved"
    )


def rate(text: str) -> Fraction:
    """Pictures a second: 25, 29.97, 30000/1001."""
    try:
        value = Fraction(text).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"must be a number, not {text}") from None
    if not 1 <= value <= _MOST_FPS:
        raise argparse.ArgumentTypeError(f"must be 1 to {_MOST_FPS}, not {text}")
    return value


def _render(arguments: argparse.Namespace) -> int:
    from app.render_video import render

    return render(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from app.export.command import export

    return export(arguments)


def _report(arguments: argparse.Namespace) -> int:
    from app.label_report.command import report

    return report(arguments)
