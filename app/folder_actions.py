"""What the page's second view does: label a folder of recordings, review the labels, export them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.access import Access
from app.batch import Batch
from app.channel import one_line
from app.cli_export import TOOLS
from app.folders import Folders
from app.models import Models
from app.school import School
from app.viewers import Tab, Viewers
from streams import StreamError

LABELS_IN = "velora-labels"  # of a folder whose recordings are labelled, unless told otherwise
_END_S = 2.0


class FolderActions(ABC):
    """A part of `Actions`, which has all else."""

    _viewers: Viewers
    _models: Models
    _access: Access
    _school: School
    _batch: Batch
    _folders: Folders

    @abstractmethod
    def _tab(self, token: str) -> Tab: ...

    def close(self) -> None:
        """Stop what goes on: what is finished stays."""
        self._batch.stop()
        self._batch.wait(_END_S)

    def label_folder(self, token: str, folder: str, out: str = "") -> str:
        """Label the recordings in a folder by the model in use, into another folder or `velora-labels` in it."""
        recordings = self._place_of_folder(folder)
        target = self._place_of_folder(out if out.strip() else str(recordings / LABELS_IN))  # which may be a link
        recognizer = self._tab(token).viewer.channel.recognizer
        model, weights = str(self._models.place(recognizer.name)), self._models.weights_of(recognizer.name)
        options = ["--device", str(recognizer.device), *(["--weights", weights] if weights else [])]
        self._batch.label(recordings, target, model, [*options, *self._within()])
        return ""

    def stop_folder(self, token: str) -> str:
        """Stop labelling or exporting a folder; what is finished stays."""
        self._tab(token)
        self._batch.stop()
        return ""

    def export_folder(self, token: str, out: str, to: str, video: bool = False) -> str:
        """Export the labels in a folder for a tool: csv, elan, label-studio or fiftyone; with videos perhaps."""
        self._tab(token)
        if to not in TOOLS:
            raise ValueError(f"there is no export for {to[:40]!r}: choose {', '.join(TOOLS)}")
        labels = self._place_of_folder(out)
        options = [*([] if video else ["--no-video"]), *self._within()]
        self._batch.export(labels, to, self._place_of_folder(str(labels / f"export-{to}")), options)
        return ""

    def review(self, token: str, out: str, recording: str, start_us: int) -> str:
        """Watch a recording of a labelled folder from a moment on; labels by hand then correct those of the folder."""
        folder = self._place_of_folder(out)
        own = self._folders.find(folder, recording)
        path, labels = self._access.place(own.note.source), self._place_of_folder(str(folder / own.note.labels_file))
        if not isinstance(path, Path) or not path.exists():
            raise ValueError(f"{own.note.source} has gone: put it back, or label its folder again")
        self._tab(token)
        self._viewers.play(token, path)
        tab = self._tab(token)
        tab.book = self._school.book_of(path, labels)
        if tab.viewer.channel.player is not None:
            tab.viewer.channel.player.seek(start_us)
        return ""

    def folder(self, headers: Mapping[str, str], out: str, order: str, text: str, first: int) -> dict[str, Any]:
        """What the page shows of a labelled folder, and those that can be chosen. Raises ValueError."""
        if not self._access.operates(headers):
            raise ValueError("that is for operators of this page: sign in as one")
        told: dict[str, Any] = {}
        if out.strip():
            try:
                told = self._folders.told(self._place_of_folder(out), order=order, text=text, first=first)
            except (ValueError, StreamError, OSError) as error:
                told = {"message": one_line(error, Path(out))}
        return {"folders": self._access.folders_below(), **told}

    def batch(self) -> dict[str, Any] | None:
        """How labelling a folder goes."""
        state = self._batch.state()
        return {**asdict(state), "out": str(state.out), "over": state.over} if state is not None else None

    def _within(self) -> list[str]:
        return [f"--within={folder}" for folder in self._access.folders]

    def _place_of_folder(self, text: str) -> Path:
        place = self._access.place(text.strip())
        if not isinstance(place, Path):
            raise ValueError(f"{text}: is no folder")
        return place
