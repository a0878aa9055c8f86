"""CUDA graphs: a function of tensors whose kernels are recorded once for each shape, and then sent off by one call.

A label for one stream is two hundred small kernels; to launch them one by one takes longer than to run them.
Works on CUDA and ROCm builds of torch alike; other devices have no graphs, and call the function itself.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Function = Callable[..., Tensor]
_WARM = 3  # calls before recording, in which libraries choose their kernels
_SMALL = 16  # rows of the first input; larger batches keep a GPU busy as they are
_MOST = 12  # shapes; each holds the memory of its own intermediate results
_TOLERANCE = 0.02  # of the largest value, between a replay and the function
_RECORDING = threading.Lock()  # a recording begins by waiting for the whole GPU, which another one would not survive


class Recording(NamedTuple):
    """A recorded function: fill `inputs`, call `replay`, read `output`."""

    inputs: tuple[Tensor, ...]
    replay: Callable[[], object]
    output: Tensor


Record = Callable[[Function, tuple[Tensor, ...]], Recording]


class Replays:
    """Calls a function of tensors on one device by its recordings; a shape is recorded when it comes the second time.

    What a call returns is overwritten by the next call of the same shapes: copy what is to stay. Use it from one thread
    at a time, without gradients. Where a recording fails, or says something else than the function, the function itself
    is called from then on, with a warning.
    """

    def __init__(self, function: Function, record: Record) -> None:
        self._function, self._record = function, record
        self._seen: set[tuple[torch.Size, ...]] = set()
        self._recordings: dict[tuple[torch.Size, ...], Recording] = {}
        self._broken = self._aside = False

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Meanwhile the function itself is called: hooks in it see each call, which no replay tells them of."""
        self._aside = True
        try:
            yield
        finally:
            self._aside = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._aside:
            return self._function(*inputs)
        shapes = tuple(tensor.shape for tensor in inputs)
        if (recording := self._recordings.get(shapes)) is not None:
            return _replayed(recording, inputs)
        small = inputs[0].shape[0] <= _SMALL and not self._broken
        if small and shapes in self._seen and len(self._recordings) < _MOST:
            return self._recorded(shapes, inputs)
        if small:
            self._seen.add(shapes)
        return self._function(*inputs)

    def _recorded(self, shapes: tuple[torch.Size, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        expected = self._function(*inputs)
        try:
            with _RECORDING:
                recording = self._record(self._function, tuple(tensor.clone() for tensor in inputs))
                found = _replayed(recording, inputs)
            if not _is_near(found, expected):
                raise RuntimeError("a replay differs from the function")
        except RuntimeError as error:
            self._broken = True
            warnings.warn(f"no CUDA graphs: {str(error).splitlines()[0]}; labels take longer", stacklevel=2)
            return expected
        self._recordings[shapes] = recording
        return found


def _replayed(recording: Recording, inputs: tuple[Tensor, ...]) -> Tensor:
    for own, given in zip(recording.inputs, inputs, strict=True):
        own.copy_(given)
    recording.replay()
    return recording.output


def _is_near(found: Tensor, expected: Tensor) -> bool:
    most = expected.abs().max().clamp(min=1e-6)
    return bool((found - expected).abs().max() <= _TOLERANCE * most)


def record_on_cuda(function: Function, inputs: tuple[Tensor, ...]) -> Recording:
    """Record what a function of these inputs does. Raises RuntimeError where it does what cannot be recorded."""
    with torch.cuda.device(inputs[0].device):
        now, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            for _ in range(_WARM):
                function(*inputs)
        now.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
            output = function(*inputs)
    return Recording(inputs, graph.replay, output)
