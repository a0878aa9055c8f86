"""The models that a page offers: loaded when they are first asked for, a few kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from velora.errors import ModelError

if TYPE_CHECKING:
    from velora import Recognizer

_KEPT = 4


class Models:
    """`offered` says which there are beside the first one, by name: checkpoints' folders, or names of backbones."""

    def __init__(
        self,
        first: Recognizer,
        load: Callable[[str, Sequence[str] | None], Recognizer],
        offered: Callable[[], Mapping[str, Path | str]] = dict,
        weights: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """`load` makes a recogniser of a model's place, or of words for CLIP to tell apart. Raises ModelError.

        `weights` tells those of a place's backbone, where they are not what its checkpoint says.
        """
        self.first, self._load, self._offered, self._weights = first, load, offered, weights
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, int], Recognizer] = {}

    def names(self) -> list[str]:
        """Of all that can be chosen."""
        return list(dict.fromkeys([self.first.name, *self._offered()]))

    def place(self, name: str) -> Path | str:
        """The folder of a checkpoint, or what else it is loaded by. Raises ModelError."""
        place = self._offered().get(name)
        if place is None:
            raise ModelError(f"there is no model {name!r} any more: choose another")
        return place

    def weights_of(self, name: str) -> str | None:
        """The weights of its backbone that were named at the start."""
        return self._weights(str(self.place(name)))

    def get(self, name: str) -> Recognizer:
        """The model of a name. Raises ModelError, one line."""
        if name == self.first.name:
            return self.first
        place = self.place(name)
        with self._lock:  # two at once would need twice the memory
            key = _identity(place)
            found = self._loaded.pop(key, None) or self._load(str(place), None)
            self._loaded[key] = found
            while len(self._loaded) > _KEPT:
                del self._loaded[next(iter(self._loaded))]
            return found

    def of_words(self, words: Sequence[str], backbone: str) -> Recognizer:
        """CLIP, asked for these words. Raises ModelError, one line, also where there is no text tower."""
        with self._lock:
            return self._load(backbone, words)


def _identity(place: Path | str) -> tuple[str, int]:
    """A checkpoint that was replaced is another one."""
    config = Path(place) / "config.json"
    return str(place), config.stat().st_mtime_ns if config.exists() else 0
