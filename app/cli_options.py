"""Options that several commands share, and the types of options, for argparse."""

from __future__ import annotations

import argparse
import re
from pathlib import Path


def add_model(parser: argparse.ArgumentParser, otherwise: str = "demo") -> None:
    """Which model, and where it runs."""
    parser.add_argument("--model", help=f"demo, a checkpoint's folder, or a backbone's name (default: {otherwise})")
    parser.add_argument(
        "--labels",
        metavar="WORDS|FILE",
        help="your own words, with commas or a line each in a file: CLIP recognises them without training "
        "(--model then names its backbone, by default ViT-B-16-quickgelu)",
    )
    parser.add_argument("--weights", metavar="TAG|FILE", help="of the backbone: a tag of open_clip, or a file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 (default: auto)")
    parser.add_argument(
        "--random-weights", action="store_true", help="run without trained weights; labels mean nothing"
    )


def add_format(parser: argparse.ArgumentParser) -> None:
    """What some recordings do not say of themselves."""
    parser.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="of the sensor, where a recording does not tell; to which a video or webcam is scaled (default: 346x260)",
    )
    parser.add_argument("--chip", metavar="NAME", help="of an old .aedat that does not say: DVS128, DAVIS240, …")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """What is done to a feed before anything else."""
    add_format(parser)
    parser.add_argument(
        "--rgb", metavar="FRAMES", help="frames from elsewhere: webcam:0 beside a live feed; else a video, or a folder"
    )
    parser.add_argument("--rgb-offset-ms", type=float, metavar="MS", help="added to their times: see velora align")
    parser.add_argument("--rgb-fps", type=duration, metavar="HZ", help="of a folder of pictures (default: 30)")
    parser.add_argument(
        "--rgb-homography", type=Path, metavar="FILE", help="nine numbers: from pixels of events to those of --rgb"
    )
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What is done to the events and frames of any recording."""
    parser.add_argument("--rgb-from", choices=["events"], help="grey frames, where a source has none")
    parser.add_argument("--denoise", action="store_true", help="take out background activity and hot pixels")
    parser.add_argument("--roi", type=region, metavar="X,Y,W,H", help="use this region of the sensor alone")
    parser.add_argument("--flip", choices=["horizontal", "vertical"], help="mirror left and right, or top and bottom")
    parser.add_argument("--rotate", type=int, choices=[0, 90, 180, 270], default=0, help="turn clockwise")


def add_within(parser: argparse.ArgumentParser) -> None:
    """Bounds for what a stranger's folder may lead to."""
    parser.add_argument(
        "--within", metavar="FOLDER", type=Path, action="append", help="leave out what links or notes lead to elsewhere"
    )


def size(text: str) -> tuple[int, int]:
    """Width and height of a sensor, as in 640x480."""
    width, height = (int(part) for part in text.lower().split("x"))
    if not (0 < width <= 8192 and 0 < height <= 8192):
        raise argparse.ArgumentTypeError(f"must be 1x1 to 8192x8192, not {text}")
    return width, height


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Settings of a camera (`dv:`)."""
    parser.add_argument("--exposure-us", type=positive_int, metavar="US", help="of a DAVIS (default: automatic)")
    parser.add_argument("--frame-rate", type=duration, metavar="HZ", help="of a DAVIS (default: as the camera has it)")
    parser.add_argument(
        "--contrast",
        choices=["low", "default", "high"],
        help="sensitivity of a camera: high makes more events",
    )


def region(text: str) -> tuple[int, int, int, int]:
    """Left, top, width and height, with commas."""
    x, y, width, height = (int(part) for part in text.split(","))
    return x, y, width, height


def add_page(parser: argparse.ArgumentParser) -> None:
    """Where the page is served."""
    parser.add_argument("--port", type=port, help="port to serve on (default: the first free one from 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: %(default)s, this machine only)")
    parser.add_argument(
        "--name",
        dest="names",
        type=host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="of the page behind a proxy, as browsers ask for it (repeatable)",
    )
    parser.add_argument(
        "--auth",
        type=Path,
        metavar="FILE",
        help="who may see the page: lines of NAME:PASSWORD, with :operator behind it for who may record, label and "
        "teach (default: the variable VELORA_USERS, if it is set)",
    )
    parser.add_argument(
        "--allow", type=Path, action="append", default=[], metavar="DIR", help="recordings below may be opened by path"
    )
    parser.add_argument(
        "--record-to", metavar="FOLDER", type=Path, help="for what the page records (default: this one)"
    )
    parser.add_argument(
        "--share", action="store_true", help="a link for others, through Gradio's servers; needs --auth"
    )
    parser.add_argument("--allow-uri", action="store_true", help="addresses of cameras and feeds may be opened")


def host_name(text: str) -> str:
    """A name of a machine, as the Host header has it, without a port."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name like velora.lab")
    return text


def positive_int(text: str) -> int:
    """1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def classes(text: str) -> int:
    """How many labels."""
    from velora.config import MAX_LABELS

    value = int(text)
    if not 1 <= value <= MAX_LABELS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_LABELS}, not {value}")
    return value


def seed(text: str) -> int:
    """0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def port(text: str) -> int:
    """Of TCP."""
    value = int(text)
    if not 0 < value < 65_536:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535, not {value}")
    return value


def seconds(text: str) -> float:
    """How long."""
    return _between(text, 0.1, 3600)


def lag_ms(text: str) -> float:
    """Milliseconds, more than none; inf: as long as it takes."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


def duration(text: str) -> float:
    """Seconds, more than none."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


def lamp(text: str) -> float:
    """Brightness of the simulated light."""
    return _between(text, 0.005, 1)


def share(text: str) -> float:
    """From none to all."""
    return _between(text, 0, 1)


def _between(text: str, least: float, most: float) -> float:
    value = float(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g}, not {text}")
    return value


def speed(text: str) -> float | None:
    """Times the recording's pace; None is as fast as possible."""
    if text == "max":
        return None
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"must be max, or more than 0 and at most 1000, not {text}")
    return value


def ranks(text: str) -> list[str]:
    """Cards, with commas."""
    return [rank.strip().upper() for rank in text.split(",") if rank.strip()]
