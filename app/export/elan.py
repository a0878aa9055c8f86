"""ELAN: for each recording a text of tier, begin, end and annotation, with tabs, in milliseconds of the video.

https://www.mpi.nl/corpus/html/elan: File > Import > CSV / Tab-delimited Text File.
"""

from __future__ import annotations

from pathlib import Path

from app.export.items import Export, Item, Tool, lanes
from streams.files import replaced_when_whole

HEADINGS = ("Tier", "Begin Time - msec", "End Time - msec", "Annotation")
TIER = "label"
_README = """\
Labels for ELAN (https://archive.mpi.nl/tla/elan), {count:,} recordings.

For each recording there are KEY.txt and KEY.mp4. In ELAN:

1. File > New: choose KEY.mp4; then File > Import > CSV / Tab-delimited Text File: choose KEY.txt.
2. In the dialog: column 1 is Tier, 2 Begin time, 3 End time, 4 Annotation; first row of data: 2; delimiter: tab.
3. Where ELAN has opened it in a window of its own: Edit > Linked Files > Add KEY.mp4.

Times are milliseconds of the video. Spans that overlap are on tiers of their own, since annotations of one tier cannot.

KEY.txt          tier, begin, end, annotation
KEY.mp4          the video; KEY.video.json beside it says which recording it is of, and when on the recording's clock
                 its first picture is (origin_us)
recordings.txt   which recording each KEY is of
"""


class Elan(Tool):
    """Tab-delimited text."""

    title, videos = "ELAN", "."

    def write(self, out: Path, export: Export) -> None:
        for item in export.items:
            _write(out / f"{item.key}.txt", _rows(item))
        _write(out / "recordings.txt", [("KEY", "Recording"), *((item.key, item.recording) for item in export.items)])

    def readme(self, out: Path, export: Export) -> str:
        return _README.format(count=len(export.items))


def _rows(item: Item) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [HEADINGS]
    for lane, span in lanes(item.spans):
        start_ms = round(1e3 * span.start_s)
        end_ms = max(start_ms + 1, round(1e3 * span.end_s))
        rows.append((f"{TIER} {lane + 1}" if lane else TIER, str(start_ms), str(end_ms), span.label))
    return rows


def _write(path: Path, rows: list[tuple[str, ...]]) -> None:
    """Without quotes, which ELAN would take for a part of the text: no cell holds a tab or ends a line."""
    lines = ["\t".join(" ".join(cell.split()) for cell in row) for row in rows]
    with replaced_when_whole(path) as part:
        part.write_text("\n".join([*lines, ""]), encoding="utf-8", newline="\n")
