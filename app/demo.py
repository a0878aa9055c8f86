"""`velora demo`: the page, playing recordings, by default the bundled ones; `velora live`: on a live source."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.access import Access, is_this_machine, read_users
from app.channel import Settings
from app.feed import open_feed
from app.page import serve
from app.school import School
from recordings import bundled

if TYPE_CHECKING:
    from streams import Source
    from velora import Recognizer

USERS_VARIABLE = "VELORA_USERS"


def demo(arguments: argparse.Namespace) -> int:
    """Serve the page until it is interrupted. Raises StreamError for a source that cannot be opened."""
    return _serve(arguments, arguments.sources)


def watch(arguments: argparse.Namespace) -> int:
    """The same on a live source."""
    return _serve(arguments, [arguments.source])


def _serve(arguments: argparse.Namespace, sources: Sequence[str]) -> int:
    access = access_of(arguments)
    plain = argparse.Namespace(**{**vars(arguments), "denoise": False})  # the page has a switch of its own
    offered: dict[str, Path | str] = {}
    kept: dict[Path | str, Source] = {}  # live ones that are open already, for the first who watches
    for address in sources:  # what is wrong with one is said before the page is there
        path = Path(address)
        uri = path if path.exists() else address
        name = path.name if path.exists() else address
        offered[address if name in offered else name] = uri
        source = open_feed(plain, uri)
        if source.live:
            kept[uri] = source
        else:
            source.close()

    def opened(uri: Path | str) -> Source:
        own = uri in offered.values()
        return kept.pop(uri, None) or open_feed(plain if own else _for_others(plain), uri)

    school = School()
    offered_models: dict[str, Path | str] = {"demo": "demo"}
    if arguments.model and arguments.labels is None:
        offered_models[Path(arguments.model).name or arguments.model] = arguments.model
    settings = Settings(
        opened=opened,
        stride=getattr(arguments, "stride", None),
        denoise=arguments.denoise,
        max_lag_ms=getattr(arguments, "max_lag_ms", None),
        record_to=recordings_of(arguments),
    )
    try:
        serve(
            _loader(arguments),
            {**offered, **{name: path for name, path in bundled().items() if name not in offered}},
            host=arguments.host,
            port=arguments.port,
            share=arguments.share,
            names=arguments.names,
            settings=settings,
            access=access,
            load_other=loader_of_others(arguments),
            models=lambda: {**offered_models, **school.models()},
            school=school,
            weights=lambda place: _weights_of(arguments, place),
        )
    finally:
        for source in kept.values():
            source.close()
    return 0


def _for_others(arguments: argparse.Namespace) -> argparse.Namespace:
    """Of the options for the sources that are named, those that fit any recording."""
    fitting = {name: getattr(arguments, name) for name in ("denoise", "flip", "rotate")}
    return argparse.Namespace(**fitting, roi=None)


def access_of(arguments: argparse.Namespace) -> Access:
    """Who may do what. Raises ValueError for users that cannot be read, and folders that are none."""
    users = {}
    text = os.environ.get(USERS_VARIABLE, "")
    if arguments.auth is not None:
        try:
            text = arguments.auth.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{arguments.auth}: the users cannot be read ({error})") from None
    if text or arguments.auth is not None:
        try:
            users = read_users(text)
        except ValueError as error:
            raise ValueError(f"{arguments.auth or USERS_VARIABLE}: {error}") from None
    for folder in arguments.allow:
        if not folder.is_dir():
            raise ValueError(f"--allow {folder}: is no folder")
    return Access(
        open_to_others=arguments.share or not is_this_machine(arguments.host),
        users=users,
        folders=tuple(folder.resolve() for folder in arguments.allow),
        uris=arguments.allow_uri,
    )


def recordings_of(arguments: argparse.Namespace) -> Path:
    """Where the page records to: the folder it was started in, unless told otherwise."""
    folder: Path = arguments.record_to or Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _loader(arguments: argparse.Namespace) -> Callable[[], Recognizer]:
    def load() -> Recognizer:
        from app.model import load_model

        return load_model(arguments)

    return load


def _weights_of(arguments: argparse.Namespace, place: str) -> str | None:
    """Those named at the start, for a checkpoint on another backbone than the bundled one."""
    from velora.checkpoint import CONFIG, load_config

    if arguments.weights is None or not (Path(place) / CONFIG).exists():
        return None
    backbone = load_config(Path(place) / CONFIG).backbone
    weights: str = arguments.weights
    return None if backbone == "demo" else weights


def loader_of_others(arguments: argparse.Namespace) -> Callable[[str, Sequence[str] | None], Recognizer]:
    """Models that are chosen on the page, on the same device; a backbone's weights are those named at the start."""

    def load(name: str, words: Sequence[str] | None) -> Recognizer:
        from velora import load_recognizer

        return load_recognizer(
            "zero-shot" if words else name,
            device=arguments.device,
            dtype=arguments.dtype,
            weights=arguments.weights if words else _weights_of(arguments, name),
            random_weights=arguments.random_weights and bool(words),
            labels=words,
            backbone=name if words else None,
        )

    return load
