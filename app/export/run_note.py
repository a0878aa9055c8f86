"""What run.json tells: what is used of it is checked first, since somebody else may have written it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from streams.text import printable


class FeedNote(BaseModel):
    """The options of `open_feed` that `velora label` takes; others are refused, since some would show other files."""

    model_config = ConfigDict(extra="forbid")

    size: tuple[int, int] | None = None
    chip: str | None = None
    rgb_from: Literal["events"] | None = None
    denoise: bool = False
    roi: tuple[int, int, int, int] | None = None
    flip: Literal["horizontal", "vertical"] | None = None
    rotate: Literal[0, 90, 180, 270] = 0


class SettingsNote(BaseModel):
    """What was done to the recordings when they were last labelled."""

    digest: str = ""
    feed: FeedNote = FeedNote()


class ModelNote(BaseModel):
    """What said the labels."""

    name: str = ""
    backbone: str = ""
    digest: str = ""
    device: str = ""
    dtype: str = ""
    labels: tuple[str, ...] = ()
    random_parts: tuple[str, ...] = ()


class ThroughputNote(BaseModel):
    """How fast it was."""

    real_time_factor: float = 0.0


class RunNote(BaseModel):
    """The last run of `velora label`, as far as it is used."""

    state: str = "unknown"
    written: str = ""
    command: tuple[str, ...] = ()
    model: ModelNote = ModelNote()
    settings: SettingsNote = SettingsNote()
    throughput: ThroughputNote = ThroughputNote()


def read_run(path: Path) -> RunNote:
    """All at its defaults where there is none. Raises ValueError, one line, for what `velora label` never writes."""
    try:
        return RunNote.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return RunNote()
    except ValidationError as error:
        first = error.errors()[0]
        told = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    except OSError as error:
        told = error.strerror or str(error)
    raise ValueError(f"{path} cannot be read ({printable(told)}): delete it, `velora label` writes it anew")
