"""Worker processes that read ahead: what they tell, and what becomes of those that crash or hang."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from app.labelling.inputs import Recording
from app.labelling.labeller import Labeller
from app.labelling.notes import Note
from app.labelling.reader import Ended, Look, Message, Opened, Seen
from app.labelling.readers import Readers
from app.labelling.settings import Settings
from streams import RenderConfig, Sample, open_source, synchronize
from streams.errors import CutShortError
from tests.app.conftest import write_square
from velora.preprocess import resize

SIZE = 32


def look(**changes: float) -> Look:
    return Look({"denoise": False, "roi": None, "flip": None, "rotate": 0}, RenderConfig(), SIZE, 4, 60.0)


def everything(readers: Readers, recordings: list[Recording]) -> Iterator[tuple[Recording, Message]]:
    waiting, left = list(recordings), len(recordings)
    end = time.monotonic() + 100
    while left:
        assert time.monotonic() < end
        while waiting and readers.has_room(len(waiting)):
            readers.give(waiting.pop(0))
        for recording, message in readers.messages(0.5):
            left -= isinstance(message, Ended)
            yield recording, message


def test_samples_come_in_order_and_bit_identical(tmp_path: Path, readers_in_threads: None) -> None:
    recordings = [Recording(write_square(tmp_path / f"{k}.aedat4", 9 + k), str(k)) for k in range(5)]
    got: dict[Recording, list[Seen | Opened | Ended]] = {recording: [] for recording in recordings}
    images: dict[Recording, list[np.ndarray]] = {recording: [] for recording in recordings}
    with Readers(2, look()) as readers:
        for recording, message in everything(readers, recordings):
            got[recording].append(message)
            if isinstance(message, Seen):
                images[recording].append(readers.images(recording, message.slot).copy())
                readers.free(recording, [message.slot])
        assert not readers.reading
    for recording in recordings:
        first, *seen, last = got[recording]
        with open_source(recording.path) as source:
            samples = list(synchronize(source))
            assert isinstance(first, Opened) and first.frame_size == source.frame_size
            assert first.sample_period_us == source.sample_period_us and first.span_us == source.span_us
        assert isinstance(last, Ended) and not last.failure and not last.counts
        for sample, told, image in zip(samples, seen, images[recording], strict=True):
            assert isinstance(told, Seen)
            assert (told.index, told.t_start_us, told.t_end_us) == (sample.index, sample.t_start_us, sample.t_end_us)
            assert told.events == len(sample.events) and told.discontinuity == sample.discontinuity
            assert torch.equal(torch.tensor(image), resize([sample.rgb, sample.event_image], SIZE))


def test_a_worker_waits_for_memory(tmp_path: Path, readers_in_threads: None) -> None:
    recording = Recording(write_square(tmp_path / "a.aedat4", 20), "a")
    with Readers(1, look()) as readers:
        readers.give(recording)
        slots: list[int] = []
        end = time.monotonic() + 2
        while time.monotonic() < end:
            slots += [m.slot for _, m in readers.messages(0.1) if isinstance(m, Seen)]
        assert sorted(slots) == [0, 1, 2, 3]
        readers.free(recording, slots[:1])
        (again,) = [m.slot for _, m in readers.messages(5.0) if isinstance(m, Seen)]
        assert again == slots[0]


def settings(out: Path, timeout_s: float = 60.0) -> Settings:
    names = ("model", "labels", "weights", "device", "dtype", "random_weights")
    model = dict.fromkeys(names) | {"device": "cpu", "dtype": "auto", "random_weights": False}
    feed = {"denoise": False, "roi": None, "flip": None, "rotate": 0}
    return Settings(out, model, feed, stride=1, timeout_s=timeout_s)


def notes(labeller: Labeller, recordings: list[Recording]) -> dict[str, Note]:
    return {note.recording: note for note in labeller.label_all(recordings)}


def test_crashes_and_hangs_cost_one_recording_each(
    tmp_path: Path, treacherous: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.labelling.readers._START_S", 60.0)
    names = ("a", "b crashes", "c exits", "d", "e hangs", "f")
    recordings = [Recording(write_square(tmp_path / f"{name}.aedat4", 9), name) for name in names]
    with Labeller(settings(tmp_path / "out", timeout_s=2.0), jobs=1) as labeller:
        told = notes(labeller, recordings)
        assert {name for name, note in told.items() if not note.failed} == {"a", "d", "f"}
        assert told["b crashes"].reason.startswith("reading it crashed (SIGSEGV)")
        assert told["c exits"].reason.startswith("reading it ended the process (exit code 7)")
        assert told["e hangs"].reason.startswith("reading it made no headway for 2 s")
        assert {note.windows for note in told.values() if not note.failed} == {2}
        (again,) = labeller.label_all(recordings[:1])  # it goes on with what workers there are
        assert again.windows == 2


def test_a_model_whose_output_is_no_number_fails_the_recording_alone(
    tmp_path: Path, readers_in_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = [Recording(write_square(tmp_path / f"{name}.aedat4", 12), name) for name in ("a", "b", "c")]
    with Labeller(settings(tmp_path / "out"), jobs=2) as labeller:
        model, calls = labeller.recognizer.model, iter(range(1000))
        fuse, first = model.fuse, torch.tensor([0])

        def once_infinite(*pooled: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = fuse(*pooled)
            return logits.index_fill(0, first, torch.inf) if next(calls) == 0 else logits

        monkeypatch.setattr(model, "fuse", once_infinite)
        told = notes(labeller, recordings)
    (failed,) = [note for note in told.values() if note.failed]
    assert failed.reason.startswith(f"{failed.source}: ") and "output is not finite: try --dtype fp32" in failed.reason
    assert [note.windows for note in told.values() if not note.failed] == [5, 5]


def test_one_recording_at_a_time(tmp_path: Path, readers_in_threads: None) -> None:
    with Labeller(settings(tmp_path / "out")) as labeller:
        for k in range(3):
            note = labeller.label(Recording(write_square(tmp_path / f"{k}.aedat4", 8 + k), f"sub/{k}"))
            assert (note.recording, note.windows, note.failed) == (f"sub/{k}", 1 + k, False)
            assert (tmp_path / "out" / note.windows_file).exists() and (tmp_path / "out" / note.labels_file).exists()
        missing = labeller.label(Recording(tmp_path / "nowhere", "nowhere"))
        assert missing.failed and missing.reason == f"{tmp_path / 'nowhere'}: no such file; check the path"


def test_settings_can_be_handed_to_another_process(tmp_path: Path) -> None:
    import pickle

    own = settings(tmp_path)
    assert pickle.loads(pickle.dumps(own)) == own


def test_a_full_disk_ends_it_all(tmp_path: Path, readers_in_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from app.labelling.windows import JsonWindows

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a.windows.jsonl")

    monkeypatch.setattr(JsonWindows, "add", full)
    recordings = [Recording(write_square(tmp_path / f"{k}.aedat4", 9), str(k)) for k in range(3)]
    with Labeller(settings(tmp_path / "out")) as labeller, pytest.raises(OSError, match="No space left"):
        notes(labeller, recordings)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_what_cannot_be_written_fails_alone(tmp_path: Path, readers_in_threads: None) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("in the way of a folder")
    recordings = [Recording(write_square(tmp_path / f"{k}.aedat4", 20), name) for k, name in enumerate(("sub/x", "y"))]
    with Labeller(settings(tmp_path / "out")) as labeller:
        told = notes(labeller, recordings)
    assert told["sub/x"].failed and "sub" in told["sub/x"].reason and not told["y"].failed


def test_a_run_that_was_suspended_goes_on(tmp_path: Path, readers_in_threads: None) -> None:
    """As by Ctrl-Z: the clock went on, and nobody could tell anything."""
    recording = Recording(write_square(tmp_path / "a.aedat4", 20), "a")
    with Readers(1, dataclasses.replace(look(), timeout_s=1.0)) as readers:
        readers.give(recording)
        told: list[Message] = []
        end = time.monotonic() + 60
        while not any(isinstance(message, Ended) for message in told):
            assert time.monotonic() < end
            new = [message for _, message in readers.messages(0.05)]
            readers.free(recording, [message.slot for message in new if isinstance(message, Seen)])
            if not told and new:
                (reader,) = readers._readers
                reader.heard -= 100
                readers._listened -= 100
            told += new
    (ended,) = [message for message in told if isinstance(message, Ended)]
    assert not ended.failure and sum(isinstance(message, Seen) for message in told) == 20


def test_a_decoder_that_is_killed_leaves_the_recording_to_be_tried_again(
    tmp_path: Path, readers_in_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> Iterator[Sample]:
        with open_source(path) as source:
            yield from itertools.islice(synchronize(source), 12)
        raise CutShortError(f"{path}: its decoder was killed")

    path = write_square(tmp_path / "a.aedat4", 20)
    monkeypatch.setattr("app.labelling.reader.synchronize", killed)
    with Labeller(settings(tmp_path / "out"), jobs=1) as labeller:
        (note,) = labeller.label_all([Recording(path, "a")])
    assert note.failed and note.reason.endswith("its decoder was killed")
