"""Label Studio: tasks with predictions, and the labelling configuration that they fit.

https://labelstud.io/tags/timelinelabels: frames are counted from 1, and a range holds its first and its last one.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from app.export.items import Export, Item, Span, Tool
from app.film.film import Clock
from app.label_colours import hex_colour
from streams.files import replaced_when_whole
from streams.text import storable

CONTROL, VIDEO = "label", "video"  # names in the configuration
_TREMBLE = 0.1  # of a picture, by which moments of a camera are off
_README = """\
Labels for Label Studio (https://labelstud.io), {count:,} recordings.

1. Let Label Studio serve the videos from this folder, which is its document root:

    pip install label-studio
    export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true
    export LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}
    label-studio start

2. Create a project. Settings > Labeling Interface > Code: paste config.xml.
3. Settings > Cloud Storage > Add Source Storage > Local Files; the absolute local path is
   {videos}
   Save it. Do not press Sync: that would make tasks without labels.
4. Import tasks.json. The labels are predictions: each task shows them, and takes them over when it is edited.

Once this folder has moved, only the two paths above are others: tasks name videos relative to the document root.

tasks.json       a task a recording, with its name, and when its first picture is on the recording's clock (origin_us)
config.xml       the labels, and the rate of each video, which its task tells
videos/          the videos; KEY.video.json beside each says the same of it
"""


class LabelStudio(Tool):
    """Timeline labels."""

    title, videos = "Label Studio", "videos"

    def write(self, out: Path, export: Export) -> None:
        tasks = [self._task(item, export) for item in export.items]
        _write(out / "tasks.json", json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
        _write(out / "config.xml", config(export.labels))

    def readme(self, out: Path, export: Export) -> str:
        root = out.absolute()
        return _README.format(count=len(export.items), root=_quoted(root), videos=storable(str(root / self.videos)))

    def _task(self, item: Item, export: Export) -> dict[str, Any]:
        data = {
            VIDEO: f"/data/local-files/?d={quote(f'{self.videos}/{item.key}.mp4')}",
            "fps": item.clock.rate,
            "recording": item.recording,
            "origin_us": item.clock.origin_us,
        }
        sure = [span.confidence for span in item.spans if span.confidence is not None]
        prediction: dict[str, Any] = {
            "model_version": export.model,
            "result": [_region(number, span, item.clock) for number, span in enumerate(item.spans, 1)],
        }
        if sure:
            prediction["score"] = round(mean(sure), 4)
        return {"data": data, "predictions": [prediction]}


def frames(span: Span, clock: Clock) -> tuple[int, int]:
    """The first picture that shows a span, and the last one, counted from 1; one at least."""
    first, last = 1 + _edge(span.start_s, clock), _edge(span.end_s, clock)
    first = first if clock.pictures is None else min(first, clock.pictures)
    return first, max(first, last)


def _edge(moment_s: float, clock: Clock) -> int:
    """How many pictures begin before a moment; an exposure ends some time before the next one begins."""
    return math.ceil(moment_s * clock.fps - _TREMBLE)


def config(labels: tuple[str, ...]) -> str:
    """The labelling configuration."""
    rows = [
        f"    <Label value={quoteattr(label)} background={quoteattr(hex_colour(label, labels))}/>" for label in labels
    ]
    return "\n".join(
        [
            "<View>",
            '  <Header value="$recording"/>',
            f'  <Video name="{VIDEO}" value="${VIDEO}" frameRate="$fps" timelineHeight="120"/>',
            f'  <TimelineLabels name="{CONTROL}" toName="{VIDEO}">',
            *rows,
            "  </TimelineLabels>",
            "</View>",
            "",
        ]
    )


def _region(number: int, span: Span, clock: Clock) -> dict[str, Any]:
    first, last = frames(span, clock)
    told: dict[str, Any] = {
        "id": f"span{number}",
        "type": "timelinelabels",
        "from_name": CONTROL,
        "to_name": VIDEO,
        "value": {"ranges": [{"start": first, "end": last}], "timelinelabels": [span.label]},
    }
    return told if span.confidence is None else {**told, "score": span.confidence}


def _quoted(path: Path) -> str:
    """For a shell."""
    return "'" + storable(str(path)).replace("'", "'\\''") + "'"


def _write(path: Path, text: str) -> None:
    with replaced_when_whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
