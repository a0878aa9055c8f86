"""FiftyOneTemporalDetectionDataset: labels.json, and videos in data/ that are called as its keys.

https://docs.voxel51.com/user_guide/import_datasets.html
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.export.items import Export, Span, Tool
from streams.files import replaced_when_whole
from streams.text import storable

_README = """\
Labels for FiftyOne (https://docs.voxel51.com), {count:,} recordings.

    pip install fiftyone        and FFmpeg, which FiftyOne needs for any video

    import fiftyone as fo
    dataset = fo.Dataset.from_dir({folder!r}, dataset_type=fo.types.FiftyOneTemporalDetectionDataset)
    fo.launch_app(dataset).wait()

labels.json      what each video shows, in seconds of the video
data/            the videos; KEY.video.json beside each says which recording it is of, and when on the recording's clock
                 its first picture is (origin_us)
recordings.json  which recording each video is of
"""


class FiftyOne(Tool):
    """Temporal detections. Labels are numbers: places in `classes`."""

    title, videos = "FiftyOne", "data"

    def write(self, out: Path, export: Export) -> None:
        places = {label: place for place, label in enumerate(export.labels)}
        labels = {item.key: [_detection(span, places) for span in item.spans] for item in export.items}
        _write(out / "labels.json", {"classes": list(export.labels), "labels": labels})
        _write(out / "recordings.json", {item.key: item.recording for item in export.items})

    def readme(self, out: Path, export: Export) -> str:
        return _README.format(count=len(export.items), folder=storable(str(out.absolute())))


def _detection(span: Span, places: dict[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "label": places[span.label],
        "timestamps": [round(span.start_s, 6), round(span.end_s, 6)],
    }
    return told if span.confidence is None else {**told, "confidence": span.confidence}


def _write(path: Path, content: object) -> None:
    with replaced_when_whole(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
