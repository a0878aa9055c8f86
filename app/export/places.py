"""Where recordings are: where they were when they were labelled, or below another folder since.

A folder of labels may be a stranger's: what its notes name is taken only if it is what was labelled, by size and
beginning, so nobody's other recordings get into an export or a report.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.labelling.notes import Note, state_of
from streams.files import is_within

_COPIED = ("size", "head")  # what stays equal when a recording is copied


class Places:
    """Finds recordings; those that have moved below `root`, by their place there or by what they are."""

    def __init__(self, root: Path | None, within: Sequence[Path] | None = None) -> None:
        """Those outside of all folders `within` are not found. Raises ValueError where `root` is no folder."""
        if root is not None and not root.is_dir():
            raise ValueError(f"{root} is no folder: --recordings names one that holds the recordings")
        self.root, self._within = root, within
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, note: Note) -> Path | None:
        """The recording of a note; None where it is not to be found, or is not what was labelled."""
        found = self._find(note)
        return found if found is None or self._within is None or is_within(found, self._within) else None

    def missing(self, note: Note) -> str:
        """What to say of a recording that is not to be found."""
        if self._within is not None and self._find(note):
            return f"{note.source} is not in a folder that may be opened here"
        where = "has gone or changed" if self.root is None else f"has gone or changed, and is not below {self.root}"
        return f"{note.source} {where}: --recordings ROOT looks for it below a folder; or label it again"

    def _find(self, note: Note) -> Path | None:
        source = Path(note.source)
        if _is_copy(source, note.state):
            return source
        if self.root is None:
            return None
        mirrored = self.root / note.recording
        if _is_copy(mirrored, note.state):
            return mirrored
        same = [path for path in self._called(source.name) if _is_copy(path, note.state)]
        return same[0] if len(same) == 1 else None

    def _called(self, name: str) -> list[Path]:
        if self._by_name is None:
            assert self.root is not None
            self._by_name = defaultdict(list)
            for path in _walk(self.root):
                self._by_name[path.name].append(path)
        return self._by_name.get(name, [])


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))


def _is_copy(path: Path, state: Mapping[str, Any]) -> bool:
    if not (path.is_file() or path.is_dir()):
        return False  # a pipe would never end
    try:
        found = state_of(path)
    except OSError:
        return False
    return all(found.get(name) == state.get(name) for name in _COPIED)
