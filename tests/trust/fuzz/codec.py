"""The AEDAT 4 codec under a fuzzer that follows what its inputs reach (atheris, of the extra `fuzz`).

    python -m tests.trust.fuzz.codec FOLDER SECONDS

The first byte of an input says what the others are for. It ends at the first one that raises what it should not, with
that input in FOLDER; `python -m tests.trust.fuzz.codec FOLDER 0 INPUT` runs it again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import atheris

with atheris.instrument_imports(include=["streams"]):
    from streams.aedat4 import DECODE_ERRORS, decode_events, decode_frame, decompress, parse_header, parse_table
    from streams.aedat4_reader import Aedat4Reader
    from streams.aedat4_writer import compress, encode_header, encode_table

from tests.trust.fuzz.aedat4_parts import parts_of, seeds

_LARGEST = 1 << 16  # of an input
_SLOW_S, _MOST_MB = 5, 1_500  # memory with what the fuzzer itself takes

_TARGETS: tuple[Callable[[bytes], object], ...] = (
    lambda data: parse_header(data, 0),
    lambda data: parse_table(data, most=1_000),
    lambda data: decompress(data, 1),
    lambda data: decompress(data, 3),
    decode_events,
    decode_frame,
)
_HEADER, _TABLE, _LZ4, _ZSTD, _EVENTS, _FRAME = range(len(_TARGETS))


def one(data: bytes) -> None:
    """An input. Raises what a reader would not expect."""
    if not data:
        return
    try:
        _TARGETS[data[0] % len(_TARGETS)](data[1:])
    except (*DECODE_ERRORS, ElementTree.ParseError):
        pass


def corpus(folder: Path) -> None:
    """Good inputs for each target, of a small recording."""
    with tempfile.TemporaryDirectory() as own:
        case = seeds(Path(own) / "seeds")[0]
        parts = parts_of(case.data, Path(own))
        with Aedat4Reader(case.write(Path(own))) as reader:
            index = reader.index
    inputs = [(_HEADER, encode_header(code, -1, parts.xml)) for code in range(5)]
    inputs += [(_TABLE, encode_table(index))]
    for _, payload in parts.packets[:4]:
        kind = _EVENTS if payload[8:12] == b"EVTS" else _FRAME
        inputs += [(kind, payload), (_LZ4, compress(payload, 1)), (_ZSTD, compress(payload, 3))]
    for number, (target, data) in enumerate(inputs):
        (folder / str(number)).write_bytes(bytes([target]) + data)


def main(folder: Path, seconds: int, inputs: list[str]) -> None:
    """Does not return."""
    good = folder / "corpus"
    good.mkdir(parents=True, exist_ok=True)
    corpus(good)
    limits = [f"-max_total_time={seconds}", f"-max_len={_LARGEST}", f"-timeout={_SLOW_S}", f"-rss_limit_mb={_MOST_MB}"]
    options = [*limits, "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, *(inputs or [str(good)])], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
