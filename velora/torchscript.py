"""The parameters in a TorchScript archive, such as OpenAI's CLIP files, read without running any of it.

torch.load(weights_only=True) refuses these archives, and torch.jit.load compiles and runs code that comes with them.
What is needed is data alone: a zip of plain bytes (`data/N`) and a pickle (`data.pkl`) of nested modules that refer to
them. The unpickler here knows tensors, and takes every module for a passive `Node`; anything else ends the reading.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAX_DEPTH = 32  # of nested modules
_DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a zip that holds a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by their dotted names, as views of what was read. Raises ValueError for anything odd."""
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            with archive.open(pickled) as file:
                root = _Unpickler(file, archive, pickled.removesuffix("data.pkl")).load()
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"damaged TorchScript archive: {error}") from None
    except (AttributeError, MemoryError, OverflowError, RecursionError, RuntimeError, AssertionError) as error:
        raise ValueError(f"damaged TorchScript archive: {type(error).__name__}") from None
    return dict(_tensors(root))


class Node:
    """Stands for a scripted module: it only keeps the attributes that the pickle gives it."""

    state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.state = state


class _Unpickler(pickle._Unpickler):
    """Admits a handful of harmless names; each is answered by something of ours.

    It is pickle's reader in Python, because the one in C allocates as much memory as a file's memo index says.
    """

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return Node
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        answer = _ADMITTED.get(f"{module}.{name}")
        if answer is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no weights need")
        return answer

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("unknown reference")
        if key not in self._storages:
            member = self._archive.getinfo(f"{self._root}data/{key}")
            if member.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError(f"data/{key} is compressed")  # and could be a bomb
            data = bytearray(self._archive.read(member))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """A view of a storage; torch refuses one that would reach beyond it."""
    return storage.as_strided(size, stride, offset)


def _given(value: Any, *_: Any) -> Any:
    return value


_ADMITTED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _given,
    "torch.jit._pickle.build_intlist": _given,
    "torch.jit._pickle.build_tensorlist": _given,
    "torch.jit._pickle.build_doublelist": _given,
    "torch.jit._pickle.build_boollist": _given,
    "torch.jit._pickle.restore_type_tag": _given,
}


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Dotted names and tensors below a module; each module once, though a hostile file may link them in circles."""
    waiting, seen = [(root, "", 0)], {id(root)}
    while waiting:
        node, prefix, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("its modules are nested too deeply")
        for name, value in node.state.items() if isinstance(node, Node) else ():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, Node) and id(value) not in seen:
                seen.add(id(value))
                waiting.append((value, f"{prefix}{name}.", depth + 1))
