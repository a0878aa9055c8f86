"""The models in a folder of a person's own: those that were taught, and what else is a checkpoint there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.channel import one_line
from velora.errors import ModelError


@dataclass(frozen=True, slots=True)
class TaughtModel:
    """A checkpoint that `velora.load_recognizer` takes."""

    name: str
    path: Path
    labels: tuple[str, ...]
    made: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Models:
    """The newest first; and why others were left out, a line each."""

    found: tuple[TaughtModel, ...] = ()
    skipped: tuple[str, ...] = ()


def models(folder: Path) -> Models:
    """The checkpoints in a folder. One that is being written is hidden; a folder that is not there holds none."""
    found: list[TaughtModel] = []
    skipped: list[str] = []
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                found.append(_model(path))
            except ModelError as error:
                skipped.append(" ".join(str(error).split()))
    except OSError as error:
        skipped.append(one_line(error, folder))
    return Models(tuple(sorted(found, key=lambda model: -model.made)), tuple(skipped))


def _model(path: Path) -> TaughtModel:
    """Raises ModelError for what is no checkpoint, or not all of one."""
    from velora.checkpoint import ADAPTER, CONFIG, load_config, names_in, tensor_shapes  # imports torch

    config = load_config(path / CONFIG)
    stored = names_in(path / ADAPTER, fix="teach it again, or remove its folder")
    if missing := sorted(set(tensor_shapes(config, stored)) - stored):
        raise ModelError(f"{path / ADAPTER} lacks {missing[0]}: teach it again, or remove its folder")
    return TaughtModel(path.name, path, config.labels, (path / CONFIG).stat().st_mtime)
