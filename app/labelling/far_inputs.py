"""Which recordings a URL means: one of them, those below it, or those that match its wildcards."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from app.film.film import beside
from app.labelling.storage import is_far, storage_of
from streams.errors import StreamError
from streams.source import HEAD_BYTES, kind_of_head

ALWAYS = (".aedat4", ".aedat", ".es")  # recordings by their names, also where damage hides what they are
_AT_ONCE = 256  # beginnings of files that are asked for together
_WILD = re.compile(r"[*?\[]")
_NOWHERE = Path(os.devnull)  # below which no file of this machine is taken for a far one


def expand_far(far: Path, out: Path, others: Counter[str], *, listed: bool) -> Iterator[tuple[Path, Path]]:
    """Pairs of a place and a recording below it; `others` counts files that are none. See `inputs.find`.

    Raises ValueError where there is nothing.
    """
    storage, name = storage_of(far)
    if storage.isfile(name):
        yield far.parent, far
        return
    if _is_clip(storage, name):
        yield far.parent, far
        return
    if files := storage.find(name):
        root, base = far, name
    elif _WILD.search(name):
        base = name[: _WILD.search(name).start()].rpartition("/")[0]  # type: ignore[union-attr]
        files = _matching(storage, name)
        root = _up(far, name, base)
    if files:
        below = _recordings(storage, base, files, _out_below(storage, out), others)
        yield from ((root, root / name) for name in below)
    elif listed:  # a line that names nothing fails alone
        yield far.parent, far
    else:
        raise ValueError(f"{far}: there is nothing; check the address, and who may read it")


def _up(far: Path, name: str, base: str) -> Path:
    """The place above `far` that is called `base` in its storage."""
    return far.parents[len(PurePosixPath(name).relative_to(base).parts) - 1]


def _matching(storage: Any, pattern: str) -> list[str]:
    """Files that match, and those in folders that do."""
    found = set[str]()
    for name in storage.glob(pattern):
        found.update(storage.find(name) or [name])
    return sorted(found)


def _out_below(storage: Any, out: Path) -> str:
    """What the output folder is called, where it is in the same storage: nothing in it is an input."""
    return storage_of(out)[1].rstrip("/") + "/" if is_far(out) and storage_of(out)[0] == storage else "\0"


def _recordings(storage: Any, base: str, files: Iterable[str], out: str, others: Counter[str]) -> Iterator[str]:
    """The recordings among files, by their names from `base` on."""
    shown = [PurePosixPath(file).relative_to(base) for file in files if not file.startswith(out)]
    shown = [file for file in shown if not any(part.startswith(".") for part in file.parts)]
    there = set(shown)
    made = {file for file in shown if file.suffix.lower() == ".mp4" and file.with_name(beside(file).name) in there}
    others["files"] += len(made)
    shown = [file for file in shown if file not in made]  # without videos that were made here
    clips, single = _clips(shown)
    yield from map(str, clips)
    unknown = [file for file in single if file.suffix.lower() not in ALWAYS]
    yield from (str(file) for file in single if file.suffix.lower() in ALWAYS)
    for k in range(0, len(unknown), _AT_ONCE):
        known = list(_known(storage, base, unknown[k : k + _AT_ONCE]))
        others["files"] += len(unknown[k : k + _AT_ONCE]) - len(known)
        yield from known


def _clips(files: Sequence[PurePosixPath]) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """Folders CLIP with images in CLIP/CLIP_aps and CLIP/CLIP_dvs; and the files that belong to none."""
    kinds: dict[PurePosixPath, set[str]] = {}
    for file in files:
        for above in file.parents:
            name, _, kind = above.name.rpartition("_")
            if kind in ("aps", "dvs") and name and above.parent.name == name:
                kinds.setdefault(above.parent, set()).add(kind)
    clips = {folder for folder, found in kinds.items() if found == {"aps", "dvs"}}
    return sorted(clips), [file for file in files if clips.isdisjoint(file.parents)]


def _is_clip(storage: Any, name: str) -> bool:
    folder = PurePosixPath(name)
    return all(storage.isdir(str(folder / f"{folder.name}_{kind}")) for kind in ("aps", "dvs"))


def _known(storage: Any, base: str, files: Sequence[PurePosixPath]) -> Iterator[str]:
    """Those that begin like a recording."""
    names = [f"{base}/{file}" for file in files]
    heads = storage.cat_ranges(names, [0] * len(names), [HEAD_BYTES] * len(names), on_error="return")
    for file, head in zip(files, heads, strict=True):
        if isinstance(head, bytes):
            try:
                kind_of_head(head, _NOWHERE / file.name)
            except StreamError:
                continue
            yield str(file)
