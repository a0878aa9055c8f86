"""Pictures to an MP4 with H.264 that every browser plays, by PyAV (extra `export`)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from streams.items import Image

_BT709, _LIMITED = 1, 1  # as ITU-T H.273 numbers them: without, players guess the colours by a picture's height
_QUALITY = {"preset": "veryfast", "crf": "20"}


def check_av() -> None:
    """Raise ValueError, with what to do, where PyAV or its H.264 encoder is missing."""
    try:
        import av

        av.codec.Codec("libx264", "w")
    except ImportError:
        raise ValueError("videos need PyAV: pip install 'velora-rgbe[export]'") from None
    except ValueError:  # UnknownCodecError
        raise ValueError("this build of PyAV cannot write H.264: pip install --force-reinstall av") from None


class Encoder(AbstractContextManager["Encoder"]):
    """Writes pictures to a file, which is playable once the context has ended. Raises OSError."""

    def __init__(self, path: Path, size: tuple[int, int], fps: Fraction, metadata: dict[str, str]) -> None:
        """`size` is (width, height), both even."""
        import av

        self._av, self._fps, self._number = av, fps, 0
        self._path = path
        with self._named():
            # The protocol is said, since a colon in a name would be one.
            self._file = av.open(
                f"file:{path.absolute()}", "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}
            )
            self._file.metadata.update(metadata)
            self._stream: Any = self._file.add_stream("libx264", rate=fps, options=_QUALITY)
        self._stream.width, self._stream.height, self._stream.pix_fmt = *size, "yuv420p"
        context = self._stream.codec_context
        context.time_base = 1 / fps
        context.gop_size = max(1, round(fps))  # a second: reviewers jump about
        context.max_b_frames = 0  # which would shift the first picture from 0
        context.color_range = _LIMITED
        context.colorspace = context.color_primaries = context.color_trc = _BT709

    def add(self, picture: Image) -> None:
        """The next picture, uint8 [H, W, 3] in RGB order."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = self._number, 1 / self._fps
        self._number += 1
        with self._named():
            self._file.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._named():
                if kind is None:
                    self._file.mux(self._stream.encode(None))
        finally:
            with self._named():
                self._file.close()

    def _named(self) -> _Named:
        return _Named(self._av, self._path)


class _Named(AbstractContextManager["_Named"]):
    """Errors of the library are OSError of this file."""

    def __init__(self, av: Any, path: Path) -> None:
        self._av, self._path = av, path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._av.FFmpegError):
            number = getattr(error, "errno", None) or 0
            reason = os.strerror(number) if 0 < number < 200 else str(error)
            raise OSError(number, reason, str(self._path)) from None
