"""One flat table of all spans, for spreadsheets and data frames."""

from __future__ import annotations

import csv
from pathlib import Path

from app.export.items import Export, Tool
from streams.cells import safe
from streams.files import replaced_when_whole

HEADINGS = ("recording", "start_s", "end_s", "label", "confidence", "start_us", "end_us", "video", "source")
_README = """\
All spans of {count:,} recordings in one table: spans.csv, in UTF-8, with commas.

    recording          its name below the labelled folder
    start_s, end_s     seconds of the video, whose first picture is 0
    label              what is seen
    confidence         of the recogniser, 0 to 1; empty where a person has said so
    start_us, end_us   the same on the recording's own clock, microseconds
    video, source      the video, below this folder, and the recording

Cells that a spreadsheet would run as a formula begin with an apostrophe. In a spreadsheet: import it as UTF-8 with
commas; in Python: pandas.read_csv("spans.csv").
"""


class Table(Tool):
    """Comma-separated values."""

    title, videos = "CSV", "videos"

    def write(self, out: Path, export: Export) -> None:
        with replaced_when_whole(out / "spans.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(HEADINGS)
            for item in export.items:
                video = f"{self.videos}/{item.key}.mp4" if export.with_video else ""
                for span in item.spans:
                    sure = "" if span.confidence is None else f"{span.confidence:.4f}"
                    told = (safe(item.recording), f"{span.start_s:.6f}", f"{span.end_s:.6f}", safe(span.label), sure)
                    rows.writerow((*told, span.start_us, span.end_us, video, safe(item.source)))

    def readme(self, out: Path, export: Export) -> str:
        return _README.format(count=len(export.items))
