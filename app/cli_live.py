"""The options of the commands that deal with live feeds, and with two of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.cli_options import (
    add_camera,
    add_filters,
    add_format,
    add_model,
    add_page,
    duration,
    lag_ms,
    positive_int,
    seconds,
)


def add_live(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora live`, `velora serve` and `velora record`."""
    live = commands.add_parser("live", help="the page on a live source; --headless prints labels as replay does")
    live.add_argument(
        "source",
        metavar="SOURCE",
        help="dv: (an iniVation camera), tcp://HOST:PORT[,PORT], webcam:0",
    )
    live.add_argument("--headless", action="store_true", help="no page: a table on the terminal")
    live.add_argument("--json", action="store_true", help="with --headless: one JSON object a line on stdout")
    live.add_argument(
        "--stride", type=positive_int, help="samples between the frames of a window (default: as trained)"
    )
    live.add_argument("--hop", type=positive_int, help="samples from one label to the next (default: 1; headless)")
    live.add_argument(
        "--max-lag-ms",
        type=lag_ms,
        default=100.0,
        metavar="MS",
        help="samples that arrived longer ago when their turn comes are not recognised (default: %(default)g)",
    )
    live.add_argument("--record", metavar="FILE", type=Path, help="with --headless: record meanwhile, with the labels")
    add_filters(live)
    add_camera(live)
    add_page(live)
    add_model(live)
    live.set_defaults(command=_live)

    serve = commands.add_parser("serve", help="share a recording or a live source over TCP, for `velora live tcp://…`")
    serve.add_argument("source", metavar="SOURCE", help="a recording, a video, or a live source")
    serve.add_argument("--loop", action="store_true", help="play a recording again and again")
    serve.add_argument("--port", type=int, default=0, help="of events; frames are at the next one (default: free ones)")
    serve.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s, this machine only)")
    add_filters(serve)
    add_camera(serve)
    serve.set_defaults(command=_serve)

    record = commands.add_parser("record", help="a live source, or another recording, to AEDAT 4")
    record.add_argument("source", metavar="SOURCE", help="a live source, a recording, or a video")
    record.add_argument("out", metavar="FILE", type=Path, help="the .aedat4 to write; labels go beside it")
    record.add_argument("--seconds", type=duration, metavar="S", help="stop after so long (default: Ctrl-C)")
    record.add_argument("--force", action="store_true", help="replace FILE")
    add_filters(record)
    add_camera(record)
    add_model(record, "none, which recognises nothing")
    record.set_defaults(command=_record)


def add_align(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`velora align`."""
    align = commands.add_parser(
        "align",
        help="the offset between an event camera and another camera, from a hand waved before both",
        description="Wave a hand before both cameras, now fast, now slow. It prints the offset as the option to use, "
        "and draws how both feeds moved.",
        allow_abbrev=False,
    )
    align.add_argument("events", metavar="EVENTS", help="a recording of events, dv:, or tcp://HOST:PORT")
    align.add_argument(
        "--rgb", required=True, metavar="FRAMES", help="webcam:0 beside a live feed; else a video, or a folder"
    )
    align.add_argument(
        "--rgb-fps", type=duration, metavar="HZ", help="of a video or a folder (default: as it says; 30)"
    )
    align.add_argument("--seconds", type=seconds, default=5.0, metavar="S", help="how long to listen (default: 5)")
    align.add_argument("--out", type=Path, metavar="FILE", help="the picture to write (default: align.png)")
    align.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_format(align)
    add_camera(align)
    align.set_defaults(command=_align)


def _live(arguments: argparse.Namespace) -> int:
    from app.live import live

    return live(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from app.serve import serve_source

    return serve_source(arguments)


def _record(arguments: argparse.Namespace) -> int:
    from app.record import record

    return record(arguments)


def _align(arguments: argparse.Namespace) -> int:
    from app.align import align_command

    return align_command(arguments)
