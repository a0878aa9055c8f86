"""Where recordings and labels lie: files of this machine, or below a URL such as s3://bucket/folder.

    place("labels"), place("file:///data")     a Path
    place("s3://bucket/labels")                a UPath of universal_pathlib, which has what is used here of a Path

Readers need files of this machine, so a recording that is far is fetched for as long as it is read; what is written
goes to a file of this machine first, and is put in its place when it is whole.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from app.scratch import own_scratch
from streams.files import PartFile, file_fingerprint, naming, small_file

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_LIVE = ("tcp",)
_ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory")  # what is put is there as a whole
_HEAD_BYTES = 1 << 16
_BEAT_S = 1.0


class Part(Protocol):
    """A file of this machine to write to, which takes its place when it is whole: see `PartFile`."""

    path: Path

    def keep(self) -> None: ...

    def drop(self) -> None: ...


def is_url(text: str) -> bool:
    """Whether a text means a place in some storage, not a path or a camera."""
    return _URL.match(text) is not None and urlsplit(text).scheme not in _LIVE


def place(text: str) -> Path:
    """A path or a URL. Raises ValueError for a URL of which the library is missing or that nobody knows."""
    if not is_url(text):
        return Path(text)
    scheme = urlsplit(text).scheme
    if scheme == "file":
        return Path(url2pathname(unquote(text.removeprefix("file://"))))
    try:
        from upath import UPath
    except ImportError:
        raise ValueError(f"{text} needs a library: pip install 'velora-rgbe[remote]'") from None
    try:
        with warnings.catch_warnings():  # that it is of a kind which universal_pathlib itself does not test
            warnings.simplefilter("ignore", UserWarning)
            found = UPath(text, use_listings_cache=False)  # what others write meanwhile is seen
            found.fs  # noqa: B018 (its library is imported)
    except ImportError as error:
        raise ValueError(f"{text} needs a library of its kind of storage: {error}") from None
    except ValueError as error:
        raise ValueError(f"{text}: {error}; give a folder, or a URL such as s3://bucket/folder") from None
    return cast(Path, found)


def is_far(path: Path) -> bool:
    """Whether it is no file of this machine."""
    return not isinstance(path, Path)


def storage_of(path: Path) -> tuple[Any, str]:
    """Of a far place: its fsspec file system, and what it is called there."""
    far = cast(Any, path)
    return far.fs, far.path


def make_folder(path: Path) -> None:
    """Make a folder where storage has such."""
    if not is_far(path):
        path.mkdir(parents=True, exist_ok=True)
    elif not _is_atomic(storage_of(path)[0]):
        storage, name = storage_of(path)
        storage.makedirs(name, exist_ok=True)


def part_of(path: Path) -> Part:
    """A `PartFile`, or its like for a far place."""
    return _FarPart(path) if is_far(path) else PartFile(path)


@contextmanager
def replaced_when_whole(path: Path) -> Iterator[Path]:
    """A file of this machine to write to, kept only when everything went well."""
    part = part_of(path)
    try:
        with named(path, part):
            yield part.path
        part.keep()
    finally:
        part.drop()


def named(path: Path, part: Part) -> AbstractContextManager[None]:
    """Inside, an OSError of a part names what was to be written; where that is far, what is full is this machine."""
    return naming(part.path if is_far(path) else path, part.path)


class _FarPart:
    def __init__(self, path: Path) -> None:
        self._whole = path
        self.path = own_scratch().new_folder() / "part"
        self.path.touch()

    def keep(self) -> None:
        storage, name = storage_of(self._whole)
        if _is_atomic(storage):
            storage.put_file(str(self.path), name)
            return
        folder, _, last = name.rpartition("/")
        beside = f"{folder}/.{last}.{self.path.parent.name}.part"
        storage.put_file(str(self.path), beside)
        storage.mv(beside, name)

    def drop(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


def _is_atomic(storage: Any) -> bool:
    """Whether it holds objects, not files in folders: these are there as a whole."""
    names = {storage.protocol} if isinstance(storage.protocol, str) else set(storage.protocol)
    return bool(names & set(_ATOMIC))


def copy(source: Path, target: Path) -> None:
    """Copy a file to a place of the same storage."""
    if is_far(source):
        storage, name = storage_of(source)
        storage.copy(name, storage_of(target)[1])
    else:
        shutil.copy2(source, target)


@contextmanager
def fetched(path: Path, told: Callable[[], object] = lambda: None, scratch: Path | None = None) -> Iterator[Path]:
    """A file, or a folder, of this machine with what is at a place; what was fetched is removed afterwards.

    `told` is called about once a second while it comes. Raises OSError, one line, where it cannot be had.
    """
    if not is_far(path):
        yield path
        return
    folder = own_scratch().new_folder() if scratch is None else scratch
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield _fetch(path, folder / path.name, told)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetch(path: Path, target: Path, told: Callable[[], object]) -> Path:
    storage, name = storage_of(path)
    try:
        size, free = storage.du(name), shutil.disk_usage(target.parent).free
        if size > free:
            raise OSError(f"{path} has {size / 1e9:.1f} GB, {target.parent} room for {free / 1e9:.1f}: set TMPDIR")
        if storage.isdir(name):
            storage.get(name + "/", str(target) + "/", recursive=True, callback=_beats(told))
        else:
            storage.get_file(name, str(target), callback=_beats(told))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; check the path") from None
    return target


def _beats(told: Callable[[], object]) -> Any:
    """A callback for fsspec."""
    from fsspec.callbacks import Callback

    class Beats(Callback):  # type: ignore[misc]
        due = 0.0

        def call(self, *_: object, **__: object) -> None:
            if time.monotonic() >= self.due:
                self.due = time.monotonic() + _BEAT_S
                told()

        def branched(self, *_: object, **__: object) -> Any:
            return self

    return Beats()


def fingerprint(path: Path) -> dict[str, Any]:
    """What changes when a file does: size and time of change or tag, and its beginning where it has no tag.

    Raises OSError where it is not there.
    """
    if not is_far(path):
        return {name: value for name, value in file_fingerprint(path).items() if name != "path"}
    storage, name = storage_of(path)
    facts = storage.info(name)
    told = {"size": facts.get("size"), "mtime": _text(facts, "LastModified", "last_modified", "mtime", "created")}
    if tag := _text(facts, "ETag", "etag", "md5Hash", "content_md5"):
        return {**told, "tag": tag}
    head = hashlib.sha1(storage.cat_file(name, 0, _HEAD_BYTES), usedforsecurity=False).hexdigest()
    return {**told, "head": head}


def folder_fingerprint(path: Path) -> dict[str, Any]:
    """What changes when any file in a far folder does."""
    storage, name = storage_of(path)
    files = storage.find(name, detail=True)
    if not files:
        raise FileNotFoundError(f"{path}: no such folder; check the path")
    times = ("LastModified", "last_modified", "mtime", "ETag")
    listed = repr(sorted((file.removeprefix(name), f.get("size"), _text(f, *times)) for file, f in files.items()))
    size = sum(facts.get("size") or 0 for facts in files.values())
    return {"size": size, "files": hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()}


def _text(facts: dict[str, Any], *names: str) -> str:
    """The first of these that is known."""
    return next((str(facts[name]) for name in names if facts.get(name)), "")


def contents_below(folder: Path, suffix: str, most: int) -> Iterator[bytes]:
    """What is in the files of a folder and of those in it, in order of their names; none of more than `most` bytes."""
    if is_far(folder):
        storage, name = storage_of(folder)
        listed = storage.find(name, detail=True)
        names = sorted(
            file for file, facts in listed.items() if file.endswith(suffix) and (facts.get("size") or 0) <= most
        )
        found = storage.cat(names, on_error="omit") if names else {}
        yield from (found[file] for file in names if file in found)
    else:
        for file in sorted(folder.rglob(f"*{suffix}")):
            with suppress(OSError):
                if (content := small_file(file, most)) is not None:
                    yield content
