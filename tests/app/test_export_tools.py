"""The formats of annotation tools: by their published shapes, and by the tools' own libraries where these are."""

from __future__ import annotations

import csv
import json
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.export.items import Span
from app.export.label_studio import config, frames
from app.export.names import key_of
from app.film.film import Clock, read_film
from app.label_colours import hex_colour
from app.label_file import LabelRow, write_label_rows
from app.labelling.notes import Place
from tests.app.label_outputs import LABELS, SPANS, at, run, write_outputs
from tests.app.test_export import ODD

av = pytest.importorskip("av")

EVIL = "</Label>\"<script>'&\u200b=1\ttab"
SHOWN = "</Label>\"<script>'& =1 tab"  # on one line, without what cannot be seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was labelled: odd names, an evil label, one by a person, spans that overlap, a recording without any."""
    made = tmp_path_factory.mktemp("export")
    out = write_outputs(made, {ODD[0]: SPANS, ODD[1]: (), ODD[2]: SPANS[:1], ODD[3]: SPANS})
    name = Path(ODD[3]).name
    rows = [LabelRow(name, at(2), at(8), "sit", 0.25), LabelRow(name, at(0), at(5), EVIL)]
    write_label_rows(Place(out, ODD[3]).labels, rows)
    return made


@pytest.fixture(scope="module")
def export(folder: Path) -> Callable[[str], Path]:
    """Exports for a tool, once."""
    made: dict[str, Path] = {}

    def to(tool: str) -> Path:
        if tool not in made:
            out = folder / f"for {tool}"
            code, _, stderr = run("export", folder / "out", "--to", tool, "--out", out)
            assert code == 0, stderr
            made[tool] = out
        return made[tool]

    return to


@pytest.mark.parametrize("tool", ["fiftyone", "label-studio", "elan", "csv"])
def test_each_has_a_video_a_recording_and_says_how_to_import_it(tool: str, export: Callable[[str], Path]) -> None:
    out = export(tool)
    videos = {path.stem: path for path in out.rglob("*.mp4")}
    assert videos.keys() == {key_of(name) for name in ODD}
    for path in videos.values():
        film = read_film(path)
        assert film is not None and film.recording in ODD
        with av.open(str(path)) as file:
            assert file.streams[0].frames == film.clock.pictures == 20
    text = (out / "README.txt").read_text()
    assert text.splitlines()[0].startswith("velora export: ") and len(text.splitlines()) > 5
    named = set(re.findall(r"\b[\w-]+\.(?:json|xml|csv|txt)\b", text)) - {"video.json", "KEY.txt"}
    assert named and all((out / name).is_file() for name in named), "it speaks of what is there"


class TestFiftyOne:
    """https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonetemporaldetectiondataset"""

    def test_labels_are_seconds_of_the_video(self, export: Callable[[str], Path]) -> None:
        told = json.loads((export("fiftyone") / "labels.json").read_text(encoding="utf-8"))
        assert told.keys() == {"classes", "labels"}
        assert told["classes"] == [*LABELS, SHOWN]
        assert told["labels"].keys() == {path.stem for path in (export("fiftyone") / "data").glob("*.mp4")}
        assert told["labels"][key_of(ODD[0])] == [
            {"label": 0, "timestamps": [0.0, pytest.approx(5 / 30, abs=1e-4)], "confidence": 0.9},
            {
                "label": 1,
                "timestamps": [pytest.approx(5 / 30, abs=1e-4), pytest.approx(0.4, abs=1e-4)],
                "confidence": 0.55,
            },
            {
                "label": 0,
                "timestamps": [pytest.approx(14 / 30, abs=1e-4), pytest.approx(20 / 30, abs=1e-4)],
                "confidence": 0.7,
            },
        ]
        assert told["labels"][key_of(ODD[1])] == []
        assert [d.get("confidence") for d in told["labels"][key_of(ODD[3])]] == [None, 0.25]

    def test_its_own_importer_reads_it(self, export: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
        importers = pytest.importorskip("fiftyone.utils.data.importers", reason="needs fiftyone")
        from fiftyone.core.metadata import VideoMetadata

        metadata = VideoMetadata(total_frame_count=20, duration=20 / 30, frame_rate=30)
        monkeypatch.setattr(VideoMetadata, "build_for", lambda *_: metadata)  # which would take ffprobe
        with importers.FiftyOneTemporalDetectionDatasetImporter(dataset_dir=str(export("fiftyone"))) as importer:
            found = {Path(video): label.detections for video, _, label, _ in importer}
        assert {path.stem for path in found if path.is_file()} == {key_of(name) for name in ODD}
        shown = {path.stem: [(d.label, tuple(d.support), d.confidence) for d in own] for path, own in found.items()}
        assert shown[key_of(ODD[2])] == [("walk", (1, 6), 0.9)] and shown[key_of(ODD[1])] == []
        assert [label for label, *_ in shown[key_of(ODD[3])]] == [SHOWN, "sit"]


class TestLabelStudio:
    """https://labelstud.io/tags/timelinelabels, https://labelstud.io/guide/predictions"""

    @pytest.fixture
    def tasks(self, export: Callable[[str], Path]) -> dict[str, dict[str, Any]]:
        told = json.loads((export("label-studio") / "tasks.json").read_text(encoding="utf-8"))
        assert all(task.keys() == {"data", "predictions"} for task in told)
        return {task["data"]["recording"]: task for task in told}

    @pytest.mark.parametrize(
        ("start_s", "end_s", "expected"),
        [
            (0.0, 1.0, (1, 30)),
            (0.0, 0.01, (1, 1)),
            (1.0, 2.0, (31, 60)),
            (0.99999, 2.00001, (31, 60)),  # times of cameras tremble
            (0.34333, 0.67666, (12, 21)),  # ends of exposures: the next picture is of the next sample
            (2.98, 3.0, (90, 90)),
        ],
    )
    def test_frames_count_from_one_and_both_ends_are_inside(
        self, start_s: float, end_s: float, expected: tuple[int, int]
    ) -> None:
        assert frames(Span(start_s, end_s, 0, 0, "x", None), Clock(0, Fraction(30), 90)) == expected

    def test_tasks_name_videos_below_the_document_root(
        self, tasks: dict[str, dict[str, Any]], export: Callable[[str], Path]
    ) -> None:
        assert tasks.keys() == set(ODD)
        for name, task in tasks.items():
            address = urllib.parse.urlsplit(task["data"]["video"])
            (place,) = urllib.parse.parse_qs(address.query)["d"]
            assert address.path == "/data/local-files/" and place == f"videos/{key_of(name)}.mp4"
            assert (export("label-studio") / place).is_file() and task["data"]["fps"] == 30

    def test_predictions_are_ranges_of_frames(self, tasks: dict[str, dict[str, Any]]) -> None:
        (prediction,) = tasks[ODD[0]]["predictions"]
        assert prediction["score"] == pytest.approx((0.9 + 0.55 + 0.7) / 3, abs=1e-4)
        assert prediction["model_version"] == "velora demo 3122fd32"
        assert [region["value"] for region in prediction["result"]] == [
            {"ranges": [{"start": 1, "end": 5}], "timelinelabels": ["walk"]},
            {"ranges": [{"start": 6, "end": 12}], "timelinelabels": ["sit"]},
            {"ranges": [{"start": 15, "end": 20}], "timelinelabels": ["walk"]},
        ]
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == ("timelinelabels", "label", "video")
        assert len({region["id"] for region in prediction["result"]}) == 3
        assert "score" not in tasks[ODD[3]]["predictions"][0]["result"][0], "a person said so"
        assert tasks[ODD[1]]["predictions"][0]["result"] == []

    def test_the_configuration_knows_all_labels(self, export: Callable[[str], Path]) -> None:
        root = ET.fromstring((export("label-studio") / "config.xml").read_text(encoding="utf-8"))
        video, control = root.find("Video"), root.find("TimelineLabels")
        assert video is not None and control is not None
        assert (video.get("value"), video.get("frameRate"), control.get("toName")) == (
            "$video",
            "$fps",
            video.get("name"),
        )
        assert [label.get("value") for label in control] == [*LABELS, SHOWN]
        assert all(re.fullmatch("#[0-9a-f]{6}", label.get("background", "")) for label in control)

    def test_its_own_library_takes_them(self, tasks: dict[str, dict[str, Any]], export: Callable[[str], Path]) -> None:
        interface = pytest.importorskip("label_studio_sdk.label_interface", reason="needs label-studio-sdk")
        checked = interface.LabelInterface((export("label-studio") / "config.xml").read_text(encoding="utf-8"))
        checked.validate()
        for task in tasks.values():
            assert checked.validate_task({"data": task["data"]})
            assert checked.validate_prediction(task["predictions"][0], return_errors=True) == []

    def test_colours_are_those_of_the_page(self) -> None:
        labels = [f"label {k}" for k in range(9)]
        colours = [hex_colour(label, labels) for label in labels]
        assert len(set(colours)) == 9 and colours[0] == "#be2d2d"
        assert 'background="#be2d2d"' in config(tuple(labels))


class TestElan:
    """https://www.mpi.nl/corpus/html/elan/ch01s04s02.html: CSV / Tab-delimited Text file"""

    @pytest.mark.parametrize("name", ODD)
    def test_rows_of_tier_begin_end_and_annotation(self, name: str, export: Callable[[str], Path]) -> None:
        text = (export("elan") / f"{key_of(name)}.txt").read_text(encoding="utf-8")
        headings, *rows = [line.split("\t") for line in text.splitlines()]
        assert headings == ["Tier", "Begin Time - msec", "End Time - msec", "Annotation"]
        assert all(len(row) == 4 and int(row[1]) < int(row[2]) <= 667 for row in rows)
        if name == ODD[0]:
            assert rows == [
                ["label", "0", "167", "walk"],
                ["label", "167", "400", "sit"],
                ["label", "467", "667", "walk"],
            ]

    def test_annotations_of_one_tier_do_not_overlap(self, export: Callable[[str], Path]) -> None:
        lines = (export("elan") / f"{key_of(ODD[3])}.txt").read_text(encoding="utf-8").splitlines()
        assert [line.split("\t")[::3] for line in lines[1:]] == [["label", SHOWN], ["label 2", "sit"]]


class TestTable:
    """For spreadsheets."""

    def test_no_cell_is_a_formula_and_every_name_comes_back(self, export: Callable[[str], Path]) -> None:
        with (export("csv") / "spans.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["recording"].removeprefix("'") for row in rows} == {ODD[0], ODD[2], ODD[3]}
        assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
        assert all((export("csv") / row["video"]).is_file() for row in rows)
        for row in rows:
            assert int(row["end_us"]) - int(row["start_us"]) == pytest.approx(
                1e6 * (float(row["end_s"]) - float(row["start_s"])), abs=2
            )
