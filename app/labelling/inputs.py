"""Which recordings are meant, and what each is called below the output folder.

    FILE      its name                             a list names one of these a line
    FOLDER    what is in it, as it lies there
    'a/*/b?'  as from the folder before the first wildcard

Each may be the URL of a storage, such as s3://bucket/folder.
Where two would have one name, all get the path from the folder that holds all of them.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.film.film import beside
from app.labelling.far_inputs import ALWAYS, expand_far
from app.labelling.storage import is_far, is_url, place
from streams.errors import RecordingError, StreamError
from streams.files import is_within, open_recording
from streams.image_folder import ImageFolderSource
from streams.source import kind_of
from streams.text import printable, storable


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to label."""

    path: Path  # absolute
    name: str  # relative, with slashes: its outputs are named after it


@dataclass(frozen=True, slots=True)
class Found:
    """Recordings in order of their names, and how many other files were in the folders."""

    recordings: tuple[Recording, ...]
    others: int


def find(inputs: Sequence[str], listed: Path | None, out: Path) -> Found:
    """The recordings that inputs and the lines of a list mean; what lies in `out` is none.

    Raises ValueError for an input that is not there or is live, and for a list that cannot be read.
    """
    others: Counter[str] = Counter()
    pairs = [pair for text in inputs for pair in _expand(text, out, others)]
    pairs += [pair for text in _lines(listed) for pair in _expand(text, out, others, listed=True)] if listed else []
    roots = {path: root for root, path in reversed(pairs)}  # by the input that named it first
    return Found(tuple(_named(roots)), others["files"])


def within(found: Found, folders: Sequence[Path]) -> Found:
    """Without what links lead to outside of the folders, which counts as other files."""
    stay = tuple(own for own in found.recordings if is_within(own.path, folders))
    return Found(stay, found.others + len(found.recordings) - len(stay))


def check_no_way_out(out: Path, folders: Sequence[Path]) -> None:
    """Raises ValueError where a link in an output folder leads out of `folders`: what is written would be elsewhere."""
    below = ((Path(root), name) for root, inner, files in os.walk(out) for name in (*inner, *files))
    for path in (out, *(root / name for root, name in below)):
        if path.is_symlink() and not is_within(path, folders):
            raise ValueError(f"{path} is a link to elsewhere: remove it, or put there what it leads to")


def _lines(listed: Path) -> list[str]:
    try:
        text = listed.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{listed} cannot be read as UTF-8 text, a recording a line ({error})") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _expand(text: str, out: Path, others: Counter[str], *, listed: bool = False) -> Iterator[tuple[Path, Path]]:
    """What one input means: pairs of a folder and a recording below it, both absolute."""
    if not text.strip():
        raise ValueError("an input is an empty text: give a file, a folder or a pattern")
    text = text.removeprefix("hardvs:") if not os.path.exists(text) else text
    if is_url(text) and is_far(far := place(text)):
        yield from expand_far(far, out, others, listed=listed)
        return
    text = str(place(text)) if is_url(text) else text
    path = _absolute(text)
    if _is_folder_of_others(path):
        yield from ((path, found) for found in _walk(path, out, others, set()))
    elif path.exists():
        yield path.parent, path
    elif matches := sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else []:
        root = _absolute(os.path.dirname(re.split(r"[*?\[]", text, maxsplit=1)[0]) or os.curdir)
        yield from ((root, found) for found in _matching(matches, out, others))
    elif listed:  # a line that names nothing fails alone
        yield path.parent, path
    else:
        raise ValueError(_why_none(text))


def _matching(matches: Sequence[str], out: Path, others: Counter[str]) -> Iterator[Path]:
    return _sorted_out(map(_absolute, matches), out, others, set())


def _sorted_out(paths: Iterable[Path], out: Path, others: Counter[str], seen: set[str]) -> Iterator[Path]:
    """The recordings among the paths, and below those that are folders; `others` counts what is none."""
    for path in paths:
        try:
            below = [*_walk(path, out, others, seen)] if _is_folder_of_others(path) else None
        except PermissionError:
            others["files"] += 1
            print(f"velora: {printable(storable(str(path)))} may not be read, and is left alone", file=sys.stderr)
            continue
        if below is not None:
            yield from below
        elif path.is_dir() or _is_recording(path):
            yield path
        else:
            others["files"] += 1


def _walk(folder: Path, out: Path, others: Counter[str], seen: set[str]) -> Iterator[Path]:
    """The recordings below a folder. Links are followed, each folder once; hidden ones are passed by.

    Raises OSError where it may not be read; folders in it that may not are left alone.
    """
    real = os.path.realpath(folder)
    if real in seen or (not is_far(out) and real == os.path.realpath(out)):
        return
    seen.add(real)
    shown = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    yield from _sorted_out(shown, out, others, seen)


def _is_folder_of_others(path: Path) -> bool:
    """Whether recordings may lie below it: it is a folder, and no recording itself."""
    return path.is_dir() and not ImageFolderSource.reads(b"", path)


def _is_recording(path: Path) -> bool:
    if path.suffix.lower() == ".mp4" and beside(path).exists():  # a video of a recording, that was made here
        return False
    if path.suffix.lower() in ALWAYS:
        return True
    try:
        kind_of(path)
    except StreamError:
        return False
    return True


def _why_none(text: str) -> str:
    if glob.has_magic(text):
        return f"{text}: nothing has such a name; check the path"
    try:
        live = kind_of(text).live
    except RecordingError:
        live = False
    if live:
        return f"{text} is live and has no end: record it with `velora record`, then label the file"
    try:
        open_recording(Path(text)).close()
    except RecordingError as error:
        return str(error)
    return f"{text} cannot be read"


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(text))  # links stay: names are as the person sees them


def _named(roots: dict[Path, Path]) -> list[Recording]:
    """Recordings with the names that they have below their folders, or all below a common one where these clash."""
    names = {path: path.relative_to(root).as_posix() for path, root in roots.items()}
    if len(set(names.values())) < len(names):
        if any(map(is_far, roots)):
            raise ValueError("several of the inputs have equal names: label them one by one, or the folder above them")
        try:
            common = os.path.commonpath(list(roots.values()))
        except ValueError:
            raise ValueError("the inputs are on several drives and have equal names: label them one by one") from None
        names = {path: path.relative_to(common).as_posix() for path in roots}
    return sorted((Recording(path, name) for path, name in names.items()), key=lambda recording: recording.name)
