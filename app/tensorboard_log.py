"""Scalars as TensorBoard shows them, written as they come: its own writer does so in a thread, whose errors are lost.

https://github.com/tensorflow/tensorboard: tensorboard/compat/proto/event.proto, summary/writer/record_writer.py
"""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from streams.files import append_whole, naming


class TensorBoardLog:
    """A file of events in `folder`. Raises ImportError without TensorBoard, and OSError, which names the file."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary, self._record = Event, Summary, RecordWriter
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"events.out.tfevents.{int(time.time())}.{platform.node()}.{os.getpid()}.0"
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close)
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Values by name, at a step."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._put(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))

    def close(self) -> None:
        """Closing twice does nothing."""
        self._file.close()

    def _put(self, event: object) -> None:
        record = io.BytesIO()
        self._record(record).write(event.SerializeToString())  # type: ignore[attr-defined]
        with naming(self.path, self.path):
            append_whole(self._file, record.getvalue())
