"""The parameters in a TorchScript archive, such as OpenAI's CLIP files, read without running any of it.

torch.load(weights_only=True) refuses these archives, and torch.jit.load compiles and runs code that comes with them.
What is needed is data alone: a zip of plain bytes (`data/N`) and a pickle (`data.pkl`) of nested modules that refer to
them. The reader here knows tensors and containers, and takes every module for a passive `Node`; it cannot find or call
anything else, and whatever asks for more ends the reading. An archive costs a few times its own size in memory.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAX_DEPTH = 32  # of nested modules
_MAX_NAME = 500  # characters of a dotted name
_MAX_LENGTH = 8  # of what builds a tensor: its arguments, its dimensions
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip that holds a TorchScript archive. Raises ValueError for a damaged zip."""
    return any(member.filename.endswith("/constants.pkl") for member in _members(path))


def check_archive(path: Path) -> None:
    """Raise ValueError for a zip whose data would take more memory than the file has bytes, or that is damaged."""
    data = [member for member in _members(path) if "/code/" not in member.filename]  # torch compresses code alone
    if packed := next((member.filename for member in data if member.compress_type != zipfile.ZIP_STORED), None):
        raise ValueError(f"{packed} is compressed")
    if sum(member.file_size for member in data) > path.stat().st_size:
        raise ValueError("its parts overlap")


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their dotted names, as views of what was read. Raises ValueError for anything odd."""
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            root = _Reader(archive, pickled.removesuffix("data.pkl")).read(archive.read(pickled))
        return dict(_tensors(root))
    except Exception as error:  # a hostile file may fail at any step, in any way
        raise ValueError(f"damaged TorchScript archive: {str(error) or type(error).__name__}") from None


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """What is in a zip; nothing, for a file of another kind."""
    try:
        if not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"damaged zip: {error}") from None


class Node:
    """Stands for a scripted module: it only keeps the attributes that the pickle gives it."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}


class _Reader:
    """Pickle's stack machine, with the operations that torch uses in these files, on data alone."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self, pickled: bytes) -> Any:
        """What a pickle holds: nodes, containers, tensors, strings and numbers."""
        for opcode, argument, _ in pickletools.genops(pickled):
            self._do(opcode.name, argument)
        return self._stack.pop()

    def _do(self, operation: str, argument: Any) -> None:
        match operation:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                self._marks.append(len(self._stack))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "APPEND" | "APPENDS":
                items = self._pop_marked() if operation == "APPENDS" else self._pop(1)
                self._last(list).extend(items)
            case "SETITEMS":
                items = self._pop_marked()
                self._last(dict).update(zip(map(_as_key, items[::2]), items[1::2], strict=True))
            case "BUILD":
                (state,) = self._pop(1)
                self._last(Node).state = state if isinstance(state, dict) else {}
            case _:
                self._stack.append(self._value(operation, argument))

    def _value(self, operation: str, argument: Any) -> Any:
        """What an operation leaves on the stack."""
        match operation:
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                return argument
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                return _CONSTANTS[operation]
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                return _EMPTY[operation]()
            case "TUPLE":
                return tuple(self._pop_marked())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                return tuple(self._pop(int(operation[-1])))
            case "BINGET" | "LONG_BINGET":
                return self._memo[argument]
            case "GLOBAL":
                return _named(argument)
            case "NEWOBJ" | "REDUCE":
                return _built(*self._pop(2))
            case "BINPERSID":
                return self._storage(*self._pop(1))
        raise ValueError(f"it does {operation}, which no weights need")

    def _pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise ValueError("it takes what is not there")
        del self._stack[-count:]
        return items

    def _pop_marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _last(self, kind: type[Any]) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"it changes a {type(self._stack[-1]).__name__} as if it were a {kind.__name__}")
        return self._stack[-1]

    def _storage(self, reference: Any) -> Tensor:
        kind, dtype, key, _, _ = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ValueError("unknown reference")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _as_key(value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):  # to hash nested tuples may take for ever
        raise ValueError("it names attributes by what is no name")
    return value


def _built(function: Any, arguments: Any) -> Any:
    """The stack holds no functions but those below, and `Node`."""
    if not callable(function) or not isinstance(arguments, tuple) or len(arguments) > _MAX_LENGTH:
        raise ValueError("it makes an object of no known kind")
    return function(*arguments)


def _named(name: str) -> Any:
    """What stands for a global of the pickle, "module name"."""
    module, _, attribute = name.partition(" ")
    if module.partition(".")[0] == "__torch__":
        return Node
    if module in ("torch", "torch.storage") and attribute in _DTYPES:
        return _DTYPES[attribute]
    if name not in _FUNCTIONS:
        raise ValueError(f"it names {module}.{attribute}, which no weights need")
    return _FUNCTIONS[name]


def _rebuild_tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """A view of a storage; torch refuses one that would reach beyond it."""
    if len(size) > _MAX_LENGTH:
        raise ValueError(f"a tensor has {len(size)} dimensions")
    return storage.as_strided(size, stride, offset)


def _given(value: Any, *_: Any) -> Any:
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": lambda: {},
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _given,
    "torch.jit._pickle build_intlist": _given,
    "torch.jit._pickle build_tensorlist": _given,
    "torch.jit._pickle build_doublelist": _given,
    "torch.jit._pickle build_boollist": _given,
    "torch.jit._pickle restore_type_tag": _given,
}


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Dotted names and tensors below a module; each module once, though a hostile file may link them in circles."""
    waiting, seen = [(root, "", 0)], {id(root)}
    while waiting:
        node, prefix, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its modules are nested too deeply")
        for name, value in node.state.items() if isinstance(node, Node) else ():
            path = f"{prefix}{name}"
            if len(path) > _MAX_NAME:
                raise ValueError("its names are too long")
            if isinstance(value, Tensor):
                yield path, value
            elif isinstance(value, Node) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((value, f"{path}.", depth + 1))
