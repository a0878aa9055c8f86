"""What the program writes to disk: each command that does, with what it reads, and how its files are looked at."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from app.label_file import read_label_rows
from app.lessons import Lessons
from streams import open_source
from tests.app.conftest import write_square
from tests.app.label_outputs import SPANS, write_outputs
from tests.trust.faults.disk_server import BALLAST
from tests.velora.fabricate import released_checkpoint

_TRAINED = ["--backbone", "demo", "--sampling", "clip", "--epochs", "2", "--batch", "2", "--w-rec", "0"]
_HIDDEN = {".velora", ".frames", ".scenes", "lock", BALLAST}  # what commands keep, and do not show
#: a model of a size that takes no time stands for those of open_clip
_TINY = "from tests.velora.conftest import tiny_backbone\nwith tiny_backbone():\n    sys.exit(main({line!r}))"
_PLAIN = "sys.exit(main({line!r}))"


@dataclass(frozen=True)
class Work:
    """A command that writes below a folder, and what it reads."""

    name: str
    line: Callable[[Path, Path], list[object]]  # of what is read, and of the folder
    again: Callable[[Path, Path], list[object]] | None = None  # where the same line would be refused
    body: str = _PLAIN
    stdout: bool = False  # it writes to its standard output

    def code(self, given: Path, out: Path, *, again: bool = False) -> str:
        """As Python."""
        line = [str(part) for part in (self.again if again and self.again else self.line)(given, out)]
        to = f"sys.stdout = open({str(out / 'said')!r}, 'w')\n" if self.stdout else ""
        return f"import sys\nfrom app.cli import main\n{to}{self.body.format(line=line)}"


def make_given(folder: Path) -> Path:
    """What all of them read."""
    import torch

    write_outputs(folder, {"a.aedat4": SPANS, "b.aedat4": SPANS})
    lessons, square = Lessons(folder / "lessons"), write_square(folder / "square.aedat4", 60)
    for k, label in enumerate(("left", "right") * 2):
        start_us = 1_000_000 + 400_000 * k
        lessons.add(lambda: open_source(square), start_us, start_us + 400_000, label)
    torch.save(released_checkpoint(classes=5), folder / "released.pth")
    (folder / "labels.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return folder


WORKS = (
    Work(
        "record",
        lambda i, o: ["record", i / "square.aedat4", o / "r.aedat4"],
        lambda i, o: ["record", i / "square.aedat4", o / "r.aedat4", "--force"],
    ),
    Work(
        "record with labels",
        lambda i, o: ["record", i / "square.aedat4", o / "r.aedat4", "--model", "demo"],
        lambda i, o: ["record", i / "square.aedat4", o / "r.aedat4", "--model", "demo", "--force"],
    ),
    Work("label", lambda i, o: ["label", i / "in", "--out", o / "labels", "--stride", 1, "--jobs", 1]),
    Work(
        "label to Parquet",
        lambda i, o: ["label", i / "in", "--out", o / "labels", "--stride", 1, "--jobs", 1, "--format", "parquet"],
    ),
    Work("train", lambda i, o: ["train", "--data", i / "lessons", "--out", o / "run", *_TRAINED]),
    Work("simulate", lambda i, o: ["simulate", "cards", "--seconds", 0.3, "--out", o / "s.aedat4"]),
    Work(
        "simulate a set",
        lambda i, o: ["simulate", "cards", "--scenes", 3, "--seconds", 0.3, "--out", o / "set"],
    ),
    Work(
        "simulate images",
        lambda i, o: ["simulate", "cards", "--scenes", 3, "--seconds", 0.3, "--layout", "images", "--out", o / "set"],
    ),
    Work("render", lambda i, o: ["render", i / "in", "--out", o / "videos"]),
    *(
        Work(f"export to {tool}", lambda i, o, tool=tool: ["export", i / "out", "--to", tool, "--out", o / "ex"])
        for tool in ("csv", "fiftyone", "label-studio", "elan")
    ),
    Work("report", lambda i, o: ["report", i / "out", "--out", o / "report.html"]),
    Work(
        "convert",
        lambda i, o: ["convert", i / "released.pth", "--labels", i / "labels.txt", "--out", o / "ours"],
        body=_TINY,
    ),
    Work(
        "evaluate",
        lambda i, o: ["evaluate", "demo", "--data", "cards", "--clips", 2, "--cache", o / "c", "--report", o / "rep"],
    ),
    Work("replay", lambda i, o: ["replay", i / "square.aedat4", "--json", "--speed", "max"], stdout=True),
)


def damaged(folder: Path, *, killed: bool = False) -> Iterator[str]:
    """The files below a folder that are not whole, and those that nobody wants any more.

    Who was `killed` may leave temporary ones. A recording that ended early has no table of its packets, which is none.
    """
    for path in sorted(folder.rglob("*")):
        own = [part for part in path.relative_to(folder).parts if part.startswith(".")]
        if set(own) - _HIDDEN or path.suffix == ".part":
            if not killed:
                yield f"{path.relative_to(folder)} is left over"
        elif path.is_file() and (look := _LOOKS.get("".join(path.suffixes[-2:]), _LOOKS.get(path.suffix))):
            try:
                look(path)
            except Exception as error:
                yield f"{path.relative_to(folder)}: {error!r}"


def _recording(path: Path) -> None:
    with open_source(path) as source:
        for _ in source:
            pass
        assert not source.counts.keys() - {"packet tables rebuilt"}, source.counts


def _lines(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n")
    for line in text.splitlines():
        json.loads(line)


def _table(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n") and len({len(row) for row in csv.reader(text.splitlines())}) == 1


def _video(path: Path) -> None:
    from app.film.film import read_film

    assert read_film(path) is not None and path.read_bytes()[4:8] == b"ftyp"


def _picture(path: Path) -> None:
    assert cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is not None


def _tensors(path: Path) -> None:
    from safetensors.torch import load

    assert load(path.read_bytes())


def _state(path: Path) -> None:
    import torch

    torch.load(path, weights_only=True)


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


def _parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        pq.read_table(file)


_LOOKS: Mapping[str, Callable[[Path], object]] = {
    ".aedat4": _recording,
    ".labels.csv": read_label_rows,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": _lines,
    ".csv": _table,
    ".mp4": _video,
    ".png": _picture,
    ".safetensors": _tensors,
    ".pt": _state,
    ".html": _page,
    ".parquet": _parquet,
}
