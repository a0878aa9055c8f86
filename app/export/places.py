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
_Content = tuple[str, ...]


class Places:
    """Finds recordings; those that have moved below `root`, by their place there or by what they are."""

    def __init__(self, root: Path | None, within: Sequence[Path] | None = None) -> None:
        """Those outside of all folders `within` are not found. Raises ValueError where `root` is no folder."""
        if root is not None and not root.is_dir():
            raise ValueError(f"{root} is no folder: --recordings names one that holds the recordings")
        self.root, self._within = root, within
        self._by_name: dict[str, list[Path]] | None = None
        self._by_content: dict[str, dict[_Content, Path]] = {}  # of those of a name

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
        if _is_copy(mirrored, note.state) or _is_fetched(mirrored, note.state):
            return mirrored
        return self._contents(source.name).get(_content(note.state))

    def _contents(self, name: str) -> dict[_Content, Path]:
        """The recordings of a name below the root by what they hold; of copies one."""
        if name not in self._by_content:
            states = ((path, _state_of(path)) for path in sorted(self._called(name), reverse=True))
            self._by_content[name] = {_content(state): path for path, state in states if state is not None}
        return self._by_content[name]

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
    found = _state_of(path)
    return found is not None and _content(found) == _content(state)


def _is_fetched(path: Path, state: Mapping[str, Any]) -> bool:
    """Whether it is a copy of what lay in a storage, whose tag tells nothing of its beginning."""
    found = _state_of(path) if "tag" in state else None
    return found is not None and found.get("size") == state.get("size")


def _state_of(path: Path) -> dict[str, Any] | None:
    if not (path.is_file() or path.is_dir()):
        return None  # a pipe would never end
    try:
        return state_of(path)
    except OSError:
        return None


def _content(state: Mapping[str, Any]) -> _Content:
    return tuple(str(state.get(name)) for name in _COPIED)
