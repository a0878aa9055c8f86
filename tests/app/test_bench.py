"""`velora bench`: which figures it gives, and what it says of those that it cannot. No time is asserted."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from accelerate.state import AcceleratorState

from app.bench import GROUPS, floor, models, modes, push, road, train
from app.bench.asked import Asked
from app.bench.book import Book, Row, Stopped
from app.bench.command import run
from app.bench.fabricated import Feed, NoisyClip, recorded_items, write_recording
from app.bench.timing import alternate
from app.bench.worker import Worker, WorkerFailed
from app.cli import main
from app.labelling.labeller import Labeller
from app.labelling.notes import Note
from streams import EventPacket, RgbFrame, open_source, synchronize
from streams.cores import usable_cores
from streams.simulation.cards import LABELS
from tests.app.bench_answers import answers
from velora import load_recognizer
from velora.backbones import BACKBONES, Backbone, backbone
from velora.training.clips import ClipSet

TINY = "tiny"
QUICK = ["bench", "--quick", "--pairs", "1"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone that costs next to nothing."""
    monkeypatch.setitem(BACKBONES, TINY, Backbone(TINY, 64, 3, 2, 8, 32, 16, True, None))


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked((TINY,), tmp_path, device="cpu", quick=True, pairs=1)


def found(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> dict[str, Any]:
    """The one JSON object that the command prints."""
    assert main([*QUICK, "--json", *line]) == code
    (text,) = capsys.readouterr().out.splitlines()
    report: dict[str, Any] = json.loads(text)
    return report


def check(rows: list[dict[str, Any]], ratios: dict[str, tuple[str, str]]) -> None:
    """Figures are finite and positive, their spread is of them, and ratios are quotients of what stands beside them."""
    assert rows
    for row in rows:
        figures = {name: value for name, value in row.items() if isinstance(value, float)}
        assert figures and all(math.isfinite(value) and value > 0 for value in figures.values()), figures
        assert set(row["spread"]) <= set(figures)
        assert all(low <= high for low, high in row["spread"].values())
        for ratio, (over, under) in ratios.items():
            if ratio in row:
                assert row[ratio] == pytest.approx(row[over] / row[under])
    assert set(ratios) <= {name for row in rows for name in row}


# --- the command ------------------------------------------------------------------------------------------------------


def test_each_figure_stands_beside_its_reference(capsys, small_recording: Path) -> None:
    only = ["--only", "push", "floor", "road", "--model", TINY, "--recording", str(small_recording)]
    report = found(capsys, *only, "--device", "cpu")
    groups = report["groups"]
    assert list(groups) == ["push", "floor", "road"]
    pushed = {"push_vs_window": ("window_ms", "push_ms"), "push_vs_released": ("released_ms", "push_ms")}
    check(groups["push"]["rows"], pushed)
    check(groups["road"]["rows"], {f"road_vs_{k}": ("road_mevs", f"{k}_mevs") for k in ("decode", "add_at")})
    assert groups["road"]["rows"][0]["events"] == 60 * 200
    floors = {f"push_vs_{k}": ("push_ms", f"{k}_ms") for k in ("floor", "own_floor", "gemm_floor")}
    if groups["floor"]["status"] == "done":
        check(groups["floor"]["rows"], floors | {"gemm_floor_ms": ("encodings_gflop", "bf16_tflops")})
    assert {"push_ms", "window_ms", "released_ms", "push_vs_window", "push_vs_released", "road_mevs"} <= set(report)
    assert report["push_vs_window"] == groups["push"]["rows"][0]["push_vs_window"]
    assert report["machine"]["cores"] >= 1 and report["machine"]["cpu"] and "amx" in report["machine"]
    assert report["versions"]["torch"] and report["date"].startswith("20") and report["quick"] is True


def test_people_get_tables_and_are_told_of_random_weights(capsys) -> None:
    assert main([*QUICK, "--only", "push", "--model", TINY, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "push_vs_released" in out and "RANDOM WEIGHTS" in out and "left out: CLoRA" in out
    assert "Random weights" in err and "push: done in" in err


def test_a_group_that_fails_says_why_and_the_others_go_on(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(asked: Asked, book: Book) -> None:
        book.row(what="begun").add("half_ms", [2.0])
        raise OSError("the disk is\nfull")

    monkeypatch.setattr(road, "measure", fails)
    groups = found(capsys, "--only", "road", "push", "--model", TINY, "--device", "cpu", code=1)["groups"]
    assert groups["road"]["status"] == "failed" and groups["road"]["reason"] == "OSError: the disk is full"
    assert groups["road"]["rows"][0]["half_ms"] == 2.0
    assert groups["push"]["status"] == "done"


def test_ctrl_c_prints_what_is_there_so_far(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(asked: Asked, book: Book) -> None:
        book.row(what="begun").add("half_ms", [2.0])
        os.kill(os.getpid(), signal.SIGINT)
        last = time.monotonic() + 10
        while time.monotonic() < last:
            book.doing("more")

    monkeypatch.setattr(road, "measure", interrupted)
    groups = found(capsys, "--only", "road", "push", "--model", TINY, code=130)["groups"]
    assert [groups[name]["status"] for name in ("road", "push")] == ["interrupted", "interrupted"]
    assert groups["road"]["rows"][0]["half_ms"] == 2.0 and groups["push"]["rows"] == []


@pytest.mark.parametrize(
    "line, told",
    [
        (["--model", "nothing-like-it"], "unknown backbone 'nothing-like-it'"),
        (["--recording", "missing.aedat4"], "missing.aedat4: no such file"),
        (["--dtype", "int3"], "unknown dtype 'int3'"),
        (["--plots", "pictures"], "velora-rgbe[train]"),
    ],
)
def test_options_that_do_not_fit_are_named_at_once(capsys, monkeypatch, line: list[str], told: str) -> None:
    monkeypatch.setattr("app.bench.plots.importlib", without("matplotlib"))
    assert main([*QUICK, *line]) == 1
    out, err = capsys.readouterr()
    assert told in err and len(err.splitlines()) == 1 and not out


def test_every_group_is_a_module(asked: Asked) -> None:
    stopped = {name: Book() for name in GROUPS}
    run(asked, stopped, lambda: True)
    assert {book.status for book in stopped.values()} == {"interrupted"}
    for name in GROUPS:
        assert callable(__import__(f"app.bench.{name}", fromlist=["measure"]).measure)


# --- the groups -------------------------------------------------------------------------------------------------------


def measured(name: str, asked: Asked) -> Book:
    """The book of a group."""
    book = Book()
    run(asked, {name: book})
    assert book.status in ("done", "left out"), book.reason
    return book


def rows_of(book: Book) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(json.dumps(book.as_json(), allow_nan=False))["rows"]
    return rows


def without(*missing: str) -> SimpleNamespace:
    """The module `importlib`, for which these are not installed."""
    return SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None if name in missing else object()))


def test_a_library_that_is_missing_is_named(asked: Asked, small_recording: Path, monkeypatch) -> None:
    monkeypatch.setattr(road, "importlib", without("aedat", "dv_processing"))
    book = measured("road", Asked((TINY,), asked.folder, pairs=1, recording=small_recording))
    assert book.left_out["aedat"].endswith("pip install aedat") and "dv-processing" in book.left_out
    assert "aedat_mevs" not in book.rows[0].figures and "dv_mevs" not in book.rows[0].figures
    check(rows_of(book), {"road_vs_decode": ("road_mevs", "decode_mevs")})


def test_libraries_that_fail_on_a_recording_are_left_out_with_the_reason(
    asked: Asked, small_recording: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.aedat4"
    whole = small_recording.read_bytes()
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    book = measured("road", Asked((TINY,), asked.folder, pairs=1, recording=cut))
    assert book.status == "done" and book.left_out["aedat"].startswith("cut.aedat4: ")
    check(rows_of(book), {"road_vs_decode": ("road_mevs", "decode_mevs")})


def test_without_bfloat16_there_is_no_floor(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "cpu_has_bf16", lambda: False)
    book = measured("floor", asked)
    assert book.status == "left out" and not book.rows and "bfloat16" in str(book.left_out)


def test_the_page_is_asked_by_another_process(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bench.page.importlib", without("simplejpeg"))
    threads = torch.get_num_threads()
    book = measured("page", asked)
    assert torch.get_num_threads() == threads and "simplejpeg" in book.left_out
    pairs = {"opencv_vs_pillow": ("opencv_ms", "pillow_ms"), "transport_vs_bare": ("transport_ms", "bare_ms")}
    check(rows_of(book), pairs)


def test_labelling_keeps_to_its_share_of_the_time(asked: Asked, readers_in_threads: None, monkeypatch) -> None:
    labelled: list[Note] = []

    def counted(self: Labeller, *arguments: Any, **options: Any) -> Iterator[Note]:
        for note in label_all(self, *arguments, **options):
            labelled.append(note)
            yield note

    label_all = Labeller.label_all
    monkeypatch.setattr(Labeller, "label_all", counted)
    monkeypatch.setattr("app.bench.label._QUICK_EVENTS", 500_000)
    rows = rows_of(measured("label", asked))
    recordings, jobs = max(2, usable_cores() - 1), max(1, usable_cores() - 1)
    assert len(labelled) == jobs + recordings  # all readers are warm before the clock runs
    check(rows, {"label_vs_loop": ("windows_per_s", "loop_windows_per_s")})
    assert (
        rows[0]["windows"] == recordings * (15 - 7)
        and rows[0]["device_busy"] <= 1
        and rows[0]["random_weights"] is True
    )


def test_training_is_measured_beside_the_released_loop(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Worker", Here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # or else another process reads the clips
    AcceleratorState._reset_state()  # it keeps one precision for a whole process
    try:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        rows = rows_of(measured("train", Asked((TINY,), asked.folder, device="cpu", dtype="fp32", pairs=1)))
    finally:
        AcceleratorState._reset_state()
        torch.set_num_threads(threads)
    assert [row["way"] for row in rows] == [*train.ADAPTERS, "released"]
    check(rows, {"train_vs_released": ("clips_per_s", "released_clips_per_s")})
    assert all(row["peak_gb"] > 0 for row in rows)


class Here:
    """A worker that works in this process."""

    peak_gb = 0.5

    def __init__(self, work: Any, book: Book, **_: object) -> None:
        self.ask = work

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_simulating_and_writing_are_rates(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, less in (("_QUICK_RENDERS", 30), ("_QUICK_FRAMES", 4), ("_QUICK_EVENTS", 50_000)):
        monkeypatch.setattr(f"app.bench.simulate.{name}", less)
    rows = rows_of(measured("simulate", asked))
    pairs = {"ideal_vs_loop": ("ideal_mpixels_per_s", "loop_mpixels_per_s"), "lz4_vs_plain": ("lz4_mevs", "plain_mevs")}
    check(rows, pairs | {"webcam_vs_its_pace": ("webcam_frames_per_s", "webcam_brings_per_s")})


def test_what_grows_is_drawn(asked: Asked, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    book = measured("cost", Asked((TINY,), asked.folder, device="cpu", quick=True, pairs=1, plots=plots))
    rows = rows_of(book)
    check([row for row in rows if row["what"] != "viewers"], {"vs_first": ("ms", "first_ms")})
    check(
        [row for row in rows if row["what"] == "viewers"], {"vs_first": ("cpu_ms_a_picture", "first_cpu_ms_a_picture")}
    )
    kinds = {"T", "image size", "classes", "sessions", "T, whole window", "viewers"}
    assert {row["what"] for row in rows} == kinds
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    assert len(list(plots.iterdir())) == len(kinds)


def test_every_mode_is_compared_with_float32(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tuple(NoisyClip(f"{k}", k, 9, 192, 133_333) for k in range(2))
    monkeypatch.setattr(modes, "open_dataset", lambda *_, **__: ClipSet(LABELS, clips))
    monkeypatch.setattr(modes, "cpu_has_bf16", lambda: False)
    book = measured("modes", Asked((TINY, "demo"), asked.folder, device="cpu", quick=True, clips=2))
    rows = rows_of(book)
    assert [row["mode"] for row in rows] == ["fp32, plain", "fp32, prepared", "fp32, merged"]
    assert all(row["difference_points"] == 100 * (row["top1"] - row["fp32_top1"]) for row in rows)
    assert all(row["same_label"] == 1.0 and row["windows"] for row in rows)
    assert "not trained" in book.left_out[TINY] and "bfloat16" in book.left_out["demo, bf16, merged"]


def test_in_a_hurry_modes_are_left_out(asked: Asked) -> None:
    book = measured("modes", asked)
    assert book.status == "left out" and "--clips" in book.left_out["top-1"]


# --- what they are made of --------------------------------------------------------------------------------------------


def test_the_released_algorithm_encodes_23_images_one_by_one(asked: Asked) -> None:
    recognizer = models.load(asked, TINY, dtype="fp32")
    algorithm = models.ReleasedAlgorithm(recognizer.config, recognizer.device)
    sizes: list[int] = []
    encode = algorithm.model.encode
    algorithm.model.encode = lambda images, streams: sizes.append(len(images)) or encode(images, streams)  # type: ignore[func-returns-value, method-assign]
    images = push.normalised(recognizer, Feed(8).fill())
    one_by_one = algorithm(*images)
    assert sizes == [1] * 23
    towers = {id(algorithm.model.encoders.tower_of(stream)) for stream in algorithm.model.config.streams}
    assert len(towers) == 3 and next(algorithm.model.parameters()).dtype == torch.float32
    with torch.inference_mode():
        assert torch.allclose(one_by_one, algorithm.model(*images), atol=1e-4)


def test_merged_adapters_compute_what_stacked_ones_do() -> None:
    stacked = load_recognizer("demo", device="cpu", dtype="fp32")
    merged = modes.merged_adapters(stacked)
    assert "streams" not in merged.model.encoders.adapters
    images = push.normalised(stacked, Feed(8).fill())
    with torch.inference_mode():
        assert torch.allclose(merged.model(*images), stacked.model(*images), atol=1e-3)


def test_three_encodings_of_vit_b_16_are_105_gflop() -> None:
    assert floor.flops(backbone("ViT-B-16-quickgelu")) / 1e9 == pytest.approx(105, abs=1)


def test_works_take_turns_and_slow_ones_take_fewer() -> None:
    order: list[str] = []
    works = {name: (lambda name=name: order.append(name)) for name in "abc"}  # type: ignore[misc]
    seconds = alternate(works, 4, Book(), fewer={"c": 2})
    assert "".join(order) == "cba" + "abc" + "ba" + "abc" + "ba"
    assert {name: len(own) for name, own in seconds.items()} == {"a": 4, "b": 4, "c": 2}


def test_works_that_are_stopped_make_do_with_the_turns_that_they_had() -> None:
    done: list[str] = []
    book = Book(asked_to_stop=lambda: len(done) >= 5)
    seconds = alternate({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 9, book)
    assert {name: len(own) for name, own in seconds.items()} == {"a": 1, "b": 2}
    with pytest.raises(Stopped):
        alternate({"a": lambda: None}, 9, book)


def test_a_figure_is_a_median_with_its_quartiles() -> None:
    row = Row(model="x")
    row.milliseconds("slow_ms", [0.004, 0.002, 0.008])
    row.milliseconds("fast_ms", [0.001, 0.001, 0.001])
    row.ratio("gain", "slow_ms", "fast_ms")
    assert row.figures == pytest.approx({"slow_ms": 4, "fast_ms": 1, "gain": 4})
    assert row.spread["slow_ms"] == pytest.approx((3, 6)) and row.spread["gain"] == pytest.approx((3, 6))
    with pytest.raises(ValueError, match="nothing was measured of none_ms"):
        row.milliseconds("none_ms", [])
    assert "none_ms" not in json.loads(json.dumps(row.as_json(), allow_nan=False))


def test_a_recording_that_is_made_holds_what_was_asked_for(tmp_path: Path) -> None:
    seconds = write_recording(tmp_path / "a.aedat4", 200_000, 1e6)
    items = list(recorded_items(200_000, 1e6))
    assert seconds == 0.2 and sum(len(item.events) for item in items if isinstance(item, EventPacket)) == 200_000
    ends = [item.t_end_us for item in items if isinstance(item, EventPacket | RgbFrame)]
    assert ends == sorted(ends)
    with open_source(tmp_path / "a.aedat4") as source:
        samples = list(synchronize(source))
    assert len(samples) == 6 and all(sample.has_rgb and sample.has_events for sample in samples)


# --- processes of their own -------------------------------------------------------------------------------------------


@pytest.fixture
def asker() -> Iterator[Worker]:
    with Worker(answers, Book(), timeout_s=20, weighed=True) as worker:
        yield worker


def test_a_worker_answers_fails_and_dies_without_harm(asker: Worker) -> None:
    assert asker.ask("four") == 4 and asker.peak_gb > 0
    with pytest.raises(WorkerFailed, match="ValueError: no such thing"):
        asker.ask("fails")
    assert asker.ask("again") == 5
    with pytest.raises(WorkerFailed, match="code 7"):
        asker.ask("dies")


def test_a_worker_is_ended_before_it_takes_the_last_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.bench.worker.LEFT_BYTES", 1 << 60)
    with Worker(time.sleep, Book()) as worker, pytest.raises(WorkerFailed, match="memory does not suffice"):
        worker.ask(60)
    assert not psutil.pid_exists(worker.pid)


def test_whoever_waits_for_a_worker_can_be_stopped_and_does_not_wait_for_ever() -> None:
    with Worker(time.sleep, Book(), timeout_s=0.2) as worker, pytest.raises(WorkerFailed, match="no answer within"):
        worker.ask(60)
    with Worker(time.sleep, Book(asked_to_stop=lambda: True)) as worker, pytest.raises(Stopped):
        worker.ask(60)
