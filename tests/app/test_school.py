"""Examples of what is live, and where labels by hand are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.channel import Channel, Settings
from app.school import School
from app.shared_step import SharedStep
from tests.app.fakes import FakeCamera, FakeRecognizer, until


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(tmp_path / "data")


@pytest.fixture
def camera() -> Iterator[Channel]:
    channel = Channel("webcam:0", FakeRecognizer(), SharedStep(), Settings(opened=lambda _: FakeCamera()))
    until(lambda: channel.prediction)
    yield channel
    channel.close()
    until(lambda: FakeCamera.opened == 0)


def left_over(school: School) -> list[Path]:
    return list(school.folder.glob(".example-*"))


def test_an_example_of_what_is_live_is_recorded_until_it_is_ended(school: School, camera: Channel) -> None:
    assert "press again" in school.clip(camera, "wave ") and school.recording == "wave"
    until(lambda: camera.recorded and camera.recorded.seconds > 0.5)
    assert school.clip(camera, "") == "1 example of wave"
    assert school.recording is None and school.counts() == {"wave": 1} and not left_over(school)


def test_only_who_began_an_example_ends_it(school: School, camera: Channel, small_recording: Path) -> None:
    school.clip(camera, "wave")
    other = Channel(small_recording, FakeRecognizer(), SharedStep())
    with pytest.raises(ValueError, match="an example of wave is being recorded on another source"):
        school.clip(other, "clap")
    assert school.recording_on(camera) == "wave" and school.recording_on(other) is None
    other.close()
    assert school.recording == "wave"


def test_an_example_goes_with_its_source_and_with_the_program(school: School, camera: Channel) -> None:
    school.clip(camera, "wave")
    until(lambda: left_over(school))
    camera.close()
    assert school.recording is None and not school.counts() and not left_over(school)


def test_an_example_that_was_ended_begins_no_other(school: School, camera: Channel, monkeypatch) -> None:
    """Its timer may have gone off just then."""
    monkeypatch.setattr("app.school.LONGEST_S", 1.1)
    school.clip(camera, "wave")
    clip = school._clip
    until(lambda: school.recording is None)
    assert clip is not None
    school._end(clip)
    assert school.recording is None and school._timer is None


def test_closing_keeps_nothing_that_is_half_done(school: School, camera: Channel) -> None:
    school.clip(camera, "wave")
    until(lambda: left_over(school))
    school.close()
    assert not left_over(school) and camera.recorded is None


class FastCamera(FakeCamera):
    """Its clock runs ahead of ours by a fifth."""

    period_us = 24_000


def test_an_example_that_nobody_ends_is_taken_at_its_longest(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("school", "lessons"):
        monkeypatch.setattr(f"app.{module}.LONGEST_S", 3)
    camera = Channel("webcam:0", FakeRecognizer(), SharedStep(), Settings(opened=lambda _: FastCamera()))
    until(lambda: camera.prediction)
    school.clip(camera, "wave")
    until(lambda: school.recording is None)
    until(lambda: school.counts() == {"wave": 1}, 5)
    camera.close()
    assert not left_over(school)


def test_an_example_needs_a_label(school: School, camera: Channel) -> None:
    with pytest.raises(ValueError, match="say first of what"):
        school.clip(camera, " ")


def test_labels_of_an_upload_are_found_again_by_its_name_and_content(
    school: School, small_recording: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        upload = tmp_path / name / "mine.aedat4"
        upload.parent.mkdir()
        upload.write_bytes(small_recording.read_bytes())
        channel = Channel(upload, FakeRecognizer(), SharedStep())
        book = school.book(channel, uploaded=True)
        assert [span.label for span in book.spans] == (["wave"] if name == "two" else [])
        book.mark(0, 1_000_000, "wave")
        channel.close()
    assert not list((tmp_path / "one").glob("*.csv"))
    other = tmp_path / "three" / "mine.aedat4"
    other.parent.mkdir()
    other.write_bytes(small_recording.read_bytes()[:-1] + b"x")  # of one size with it, and of somebody else
    assert not school.book(SimpleNamespace(address=other, is_live=False), uploaded=True).spans  # type: ignore[arg-type]
