"""A labelled data set, whatever its layout, as clips of resized frames.

    images       train_label.txt, val_label.txt, test_label.txt: `class_dir/clip frames label` a line, labels from 0;
                 <class_dir>/<clip>/<clip>_aps/00000000.png (RGB) and <clip>_dvs/ (events); names in classes.txt
    recordings   labels.csv (recording,start_us,end_us,label), for all, or in each of train/, val/, test/;
                 without it, the NAME.labels.csv beside recordings, as `velora record` and the page write them
    cards        simulated scenes, of which those of a split are in no other

What cannot be read is named, left out and counted; more than a twentieth ends it.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.clip_origins import ImageFolder, Origin, Recording, Scene
from app.frame_cache import CachedClip, FrameCache, Spans
from app.label_file import lines_of, read_label_rows
from app.pool import be_a_worker, pool_of
from streams import StreamError
from streams.cores import usable_cores
from streams.files import GENERAL
from streams.image_folder import image_pairs, span_of
from streams.simulation.cards import LABELS
from streams.simulation.scenes import CardScene, scene
from streams.text import printable
from velora.config import MAX_LABELS, check_label, check_labels
from velora.training.clips import ClipSet, Span

SPLITS = ("train", "val", "test")
_ENDS = (0.7, 0.85, 1.0)  # of the shares of recordings that are not in folders of their own
CLASSES = "classes.txt"  # of a folder of images
_PLACES = 1 << 48
_FEW = 60  # recordings: their splits are dealt out, since by chance one might be empty
_BROKEN = 0.05  # of the clips: more than so many end it
_VAL_EVERY = 10  # of training clips, where nothing is set apart for validation
_EXTENSIONS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class CardOptions:
    """How many simulated scenes, whether in one light or at one speed alone, and from which number on."""

    clips: int = 400
    light: str | None = None
    speed: str | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A clip that is yet to be read."""

    name: str
    spans: Spans
    origin: Origin


def open_dataset(
    address: str,
    split: str,
    cache: Path,
    *,
    size: int,
    rendering: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    options: CardOptions = CardOptions(),  # noqa: B008
    told: Callable[[int, int], None] | None = None,
) -> ClipSet:
    """The clips of one split, of images `size` pixels wide; what is not in the `cache` yet is read first.

    `address` is a folder, or "cards"; `split` is one of SPLITS. Labels are those of the whole data set, or `labels`,
    beside which no other may occur. `told` hears how many clips of how many have been read.

    Raises ValueError, one line that names file and fix.
    """
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}, only {', '.join(SPLITS)}")
    names: tuple[str, ...] = LABELS
    if address == "cards":
        if labels is not None and tuple(labels) != LABELS:
            raise ValueError(f"the model has other labels than the simulated cards: {', '.join(labels[:5])} …")
        entries = _scenes(split, options)
    elif (folder := Path(address)).is_dir():
        names, entries = (_images if is_rendered(address) else _recordings)(folder, split, labels)
    else:
        raise ValueError(f"{address} is no folder: give one with labels.csv or train_label.txt, or cards")
    if not entries:
        raise ValueError(f"{address} holds no clips of the split {split}")
    clips, skipped = _read(entries, FrameCache(cache, size, rendering or {}), f"reading {split} clips", told)
    if not clips or len(skipped) > max(1, _BROKEN * len(entries)):
        raise ValueError(f"{len(skipped)} of {len(entries)} clips of {address} cannot be read; the first: {skipped[0]}")
    return ClipSet(tuple(names), tuple(clips), tuple(skipped), _mirrors(address, names))


def _mirrors(address: str, names: Sequence[str]) -> bool:
    """Whether a flip keeps the labels true, for all that is known: HARDVS's folders do not say left or right."""
    nameless = is_rendered(address) and not (Path(address) / CLASSES).exists()
    return address != "cards" and not nameless and not any(re.search("left|right", name, re.I) for name in names)


def is_rendered(address: str) -> bool:
    """Whether a data set consists of images, in which somebody else has rendered the events."""
    return address != "cards" and (Path(address) / "train_label.txt").exists()


# --- layouts ----------------------------------------------------------------------------------------------------------


def _scenes(split: str, options: CardOptions) -> list[Entry]:
    return [
        Entry(own.name, partial(_scene_spans, own), Scene(split, number, options.light, options.speed))
        for number in range(options.first, options.first + options.clips)
        for own in [scene(split, number, light=options.light, speed=options.speed)]
    ]


def _scene_spans(own: CardScene) -> tuple[Span, ...]:
    """They take a while: the cards have to be drawn."""
    return _spans(own.labels, LABELS)


def _spans(labels: Sequence[tuple[int, int, str]], names: Sequence[str]) -> tuple[Span, ...]:
    return tuple(Span(start_us, end_us, names.index(label)) for start_us, end_us, label in labels)


def _images(folder: Path, split: str, labels: Sequence[str] | None) -> tuple[tuple[str, ...], list[Entry]]:
    """A folder as HARDVS and PokerEvent have it."""
    lists = {name: _listed(folder / f"{name}_label.txt") for name in SPLITS if (folder / f"{name}_label.txt").exists()}
    if "val" not in lists:
        apart = _apart([(path, path) for path, _ in lists["train"]])
        lists |= {"val": [row for row in lists["train"] if row[0] in apart]}
        lists |= {"train": [row for row in lists["train"] if row[0] not in apart]}
    rows = [row for own in lists.values() for row in own]
    trained = {path for path, _ in lists["train"]}
    for name in ("val", "test"):
        if both := [path for path, _ in lists.get(name, []) if path in trained]:
            raise ValueError(f"{folder / f'{name}_label.txt'}: {both[0]} is trained on, too: it is in train_label.txt")
    names = _class_names(folder, rows)
    if labels is not None and tuple(labels) != names:
        raise ValueError(f"{folder} has other classes than the model: train with --new-labels")
    return names, [entry for row in lists.get(split, []) for entry in _image_clip(folder, *row)]


def _apart(clips: Sequence[tuple[str, Any]]) -> set[Any]:
    """A tenth of the named training clips, one at least where there are two, for validation where nothing else is."""
    dealt = [clip for _, clip in sorted(clips, key=lambda own: _place(own[0]))]
    return set(dealt[:: min(_VAL_EVERY, len(dealt))]) if len(dealt) > 1 else set()


def _listed(path: Path) -> list[tuple[str, int]]:
    """`class_dir/clip` and label of each line."""
    rows = []
    for number, line in enumerate(lines_of(path), 1):
        if not (parts := line.strip().rsplit(None, 2)):
            continue
        numbers = len(parts) == 3 and all(re.fullmatch("[0-9]{1,6}", part) for part in parts[1:])
        if not numbers or ".." in parts[0] or parts[0].startswith("/") or not parts[0].isprintable():
            raise ValueError(f"{path}, line {number}: must be `class_dir/clip frames label`")
        rows.append((posixpath.normpath(parts[0]), int(parts[2])))
    return rows


def _class_names(folder: Path, rows: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    file = folder / CLASSES
    if not rows:
        raise ValueError(f"{folder} lists no clips")
    largest = max(label for _, label in rows)
    if largest >= MAX_LABELS:
        raise ValueError(f"{folder}: label {largest} is in a list; labels are below {MAX_LABELS:,}")
    if file.exists():
        names = tuple(line.strip() for line in lines_of(file) if line.strip())
    else:
        by_label: dict[int, str] = {}
        for path, label in rows:
            own = path.partition("/")[0]
            if (name := by_label.setdefault(label, own)) != own:
                raise ValueError(f"{folder}: {name} and {own} both have label {label}: name the classes in {file.name}")
        names = tuple(by_label.get(label, f"class {label}") for label in range(largest + 1))
    if largest >= len(names):
        raise ValueError(f"{folder}: label {largest} is in a list, but {file.name} names {len(names)} classes")
    try:
        return check_labels(names)
    except ValueError as error:
        raise ValueError(f"{file if file.exists() else folder}: {error}") from None


def _image_clip(folder: Path, path: str, label: int) -> Iterator[Entry]:
    clip = folder / path
    try:
        pairs = image_pairs(clip)
    except OSError:  # which is told when it is read, as that of one clip
        pairs = {}
    start_us, end_us = span_of(pairs or {0: None})
    yield Entry(path, (Span(start_us, end_us, label),), ImageFolder(clip))


def _recordings(folder: Path, split: str, labels: Sequence[str] | None) -> tuple[tuple[str, ...], list[Entry]]:
    """A folder of recordings with label files, in folders of splits or not."""
    parts = {name: folder / name for name in SPLITS if _label_files(folder / name)}
    if not parts and not _label_files(folder):
        raise ValueError(
            f"{folder} holds neither labels.csv nor train_label.txt, nor NAME.labels.csv: see `velora train --help`"
        )
    read = {name: _read_labels(place, labels) for name, place in (parts or {"": folder}).items()}
    names = tuple(labels or sorted({row[2] for rows in read.values() for own in rows.values() for row in own}))
    if "train" in parts and "val" not in parts:
        apart = _apart([(_name_in(parts["train"], path), path) for path in read["train"]])
        read |= {"val": {p: r for p, r in read["train"].items() if p in apart}}
        read |= {"train": {p: r for p, r in read["train"].items() if p not in apart}}
    if parts:
        chosen = read.get(split, {})
    else:
        chosen = {path: read[""][path] for path in _share(sorted(read[""]), split, folder)}
    return names, [Entry(_name_in(folder, path), _spans(rows, names), Recording(path)) for path, rows in chosen.items()]


def _label_files(folder: Path) -> list[Path]:
    """The files that say what the recordings of a folder show: one for all, or one for each."""
    common = folder / "labels.csv"
    return [common] if common.exists() else sorted(folder.glob("*.labels.csv"))


def _read_labels(folder: Path, labels: Sequence[str] | None) -> dict[Path, list[tuple[int, int, str]]]:
    """What the label files say of each recording. Raises ValueError that names file and line."""
    found: dict[Path, list[tuple[int, int, str]]] = {}
    files: dict[Path, Path] = {}
    for file in _label_files(folder):
        for row in read_label_rows(file):
            try:
                place = _inside(folder, row.recording)
                check_label(row.label)
                if labels is not None and row.label not in labels:
                    raise ValueError(f"the model has no label {row.label!r}: train with --new-labels")
            except ValueError as error:
                raise ValueError(f"{file}, line {row.line}: {error}") from None
            found.setdefault(place, []).append((row.start_us, row.end_us, row.label))
            files[place] = file
    return {place: _in_turn(files[place], place, own) for place, own in found.items()}


def _inside(folder: Path, name: str) -> Path:
    place = os.path.normpath(name)  # links are followed: they are the person's own
    if not name.isprintable() or place == "." or os.path.isabs(place) or place.startswith(".."):
        raise ValueError(f"{name!r} is not in this folder")
    return folder / place


def _in_turn(path: Path, place: Path, rows: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    rows = sorted(rows)
    for before, after in zip(rows, rows[1:], strict=False):
        if after[0] < before[1]:
            raise ValueError(f"{path}: {place.name} has two labels at {after[0]} us, {before[2]!r} and {after[2]!r}")
    return rows


def _share(paths: Sequence[Path], split: str, folder: Path) -> list[Path]:
    """The recordings of a split, by a hash of their names: more recordings move few of them."""
    if len(paths) < len(SPLITS):
        raise ValueError(f"{folder} has {len(paths)} recordings, too few for three splits: make train/, val/, test/")
    places = {path: _place(_name_in(folder, path)) for path in paths}
    if len(paths) < _FEW:
        dealt = sorted(paths, key=places.__getitem__)
        ends = [0, max(1, round(0.7 * len(paths)) - 1), len(paths) - max(1, round(0.15 * len(paths))), len(paths)]
        k = SPLITS.index(split)
        return sorted(dealt[ends[k] : ends[k + 1]])
    return [path for path in paths if SPLITS[_below(places[path] / _PLACES)] == split]


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _below(share: float) -> int:
    return next(k for k, end in enumerate(_ENDS) if share < end)


def _place(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(
    entries: Sequence[Entry], cache: FrameCache, title: str, told: Callable[[int, int], None] | None
) -> tuple[list[CachedClip], list[str]]:
    """All clips, those that are not in the cache read by all cores; and what could not be read."""
    found: dict[int, CachedClip | str] = {}
    for k, entry in enumerate(entries):
        try:
            clip = cache.find(entry.name, entry.origin.fingerprint(), entry.spans)
        except (OSError, IndexError) as error:
            found[k] = _told(entry, error)
        else:
            if clip is not None:
                found[k] = clip
    missing = [k for k in range(len(entries)) if k not in found]
    if missing:
        cache.folder.mkdir(parents=True, exist_ok=True)  # raises what is no clip's fault
        for k, clip_or_reason in _make(entries, missing, cache, title):
            found[k] = clip_or_reason
            if told is not None:
                told(len(found), len(entries))
    ordered = [found[k] for k in range(len(entries))]
    return [c for c in ordered if not isinstance(c, str)], [c for c in ordered if isinstance(c, str)]


def _make(
    entries: Sequence[Entry], missing: Sequence[int], cache: FrameCache, title: str
) -> Iterator[tuple[int, CachedClip | str]]:
    """By all cores; where one takes its process down, the rest one by one, so that it is known which that was."""
    left = dict.fromkeys(missing)
    try:
        for k, found in _made(entries, missing, cache, title):
            del left[k]
            yield k, found
        return
    except BrokenProcessPool:
        pass
    for k in left:
        try:
            yield from _made(entries, [k], cache, printable(entries[k].name))
        except BrokenProcessPool:
            yield k, printable(f"{entries[k].name}: reading it takes its process down: leave it out, or make room")


def _made(
    entries: Sequence[Entry], missing: Sequence[int], cache: FrameCache, title: str
) -> Iterator[tuple[int, CachedClip | str]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        pool_of(min(usable_cores(), len(missing)), _prepare) as pool,
        Progress(*columns, console=Console(stderr=True)) as bar,
    ):
        task = bar.add_task(title, total=len(missing))
        waiting: dict[Future[CachedClip | str], int] = {pool.submit(_clip, entries[k], cache): k for k in missing}
        for done in as_completed(waiting):
            bar.advance(task)
            yield waiting[done], done.result()


def _prepare() -> None:
    """In the workers: one thread each."""
    import cv2
    import torch

    be_a_worker()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _clip(entry: Entry, cache: FrameCache) -> CachedClip | str:
    """A clip, or what is wrong with it."""
    try:
        fingerprint = entry.origin.fingerprint()
        return cache.clip(entry.name, fingerprint, lambda: entry.origin.samples(cache.rendering), entry.spans)
    except (StreamError, OSError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, OSError) and error.errno in GENERAL:  # not the clip's fault
            raise
        return _told(entry, error)


def _told(entry: Entry, error: Exception) -> str:
    reason = "it has no pairs of images" if isinstance(error, IndexError) else " ".join(str(error).split())
    return printable(f"{entry.name}: {reason}")
