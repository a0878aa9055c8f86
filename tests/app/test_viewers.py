"""Viewers: one a tab, each with a token; live sources are shared, uploads are not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.channel import Settings
from app.channels import Channels
from app.slot import Waiters
from app.spans import SpanBooks
from app.strip import Moment, View
from app.viewer import Viewer
from app.viewers import MOST_VIEWERS, Viewers
from streams import RecordingError
from tests.app.fakes import LABELS, FakeCamera, FakeRecognizer, FakeSession, until, viewer_threads


@pytest.fixture
def viewers() -> Iterator[Viewers]:
    viewers = Viewers(FakeRecognizer(), Channels(Settings()))
    yield viewers
    viewers.close()
    assert not viewer_threads()


@pytest.fixture
def viewer(viewers: Viewers, small_recording: Path) -> Viewer:
    found = viewers.get(viewers.open("tab", small_recording))
    assert found is not None
    return found


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Viewers]:
    settings = Settings(opened=lambda _: FakeCamera(), record_to=tmp_path)
    viewers = Viewers(FakeRecognizer(), Channels(settings))
    yield viewers
    viewers.close()
    until(lambda: FakeCamera.opened == 0 and not viewer_threads())


def received(folder: Path, name: str, data: bytes) -> Path:
    """An upload lies in a folder of its own."""
    path = folder / f"of {name}" / name
    path.parent.mkdir()
    path.write_bytes(data)
    return path


def newest(viewer: Viewer, after: int = 0, timeout_s: float = 5.0) -> Moment | None:
    return asyncio.run(viewer.moment_after(after, timeout_s))


def test_the_state_tells_what_the_page_shows(viewer: Viewer) -> None:
    assert newest(viewer) is not None
    until(lambda: viewer.state()["labels"])
    state = viewer.state()
    assert state["playing"] and not state["message"] and not state["live"] and state["decides"]
    assert len(state["labels"]) == 5 and state["labels"][0][0] in LABELS
    assert state["length_us"] == pytest.approx(2_000_000, rel=0.1) and state["stride"] == 4
    until(lambda: viewer.state()["label_ms"] and viewer.state()["source_fps"] > 1)
    assert viewer.state()["memory_mb"] > 10


def test_it_pauses_and_resumes(viewer: Viewer) -> None:
    newest(viewer)
    viewer.pause()
    assert not viewer.playing
    number = newest(viewer, timeout_s=0.0).number
    last = newest(viewer, number, 0.2)  # at most one was on its way
    assert newest(viewer, last.number if last else number, 0.2) is None
    viewer.resume()
    assert newest(viewer, last.number if last else number) is not None and viewer.playing


def test_paint_is_counted_from_the_moment_to_the_browsers_word(viewer: Viewer) -> None:
    moment = newest(viewer, newest(viewer).number)
    time.sleep(0.3)
    viewer.painted(moment.number + 1_000_000, 0)  # nobody was shown that
    assert viewer.state()["paint_ms"] is None
    viewer.painted(moment.number, 100)
    first = viewer.state()["paint_ms"]
    assert 200 <= first[0] < 5_000
    time.sleep(0.3)
    viewer.painted(moment.number, 0)  # told twice, it counts once
    assert viewer.state()["paint_ms"] == first


def test_waiters_are_woken_from_another_thread_and_keep_only_the_newest() -> None:
    waiters, found = Waiters(), iter([None, 3])

    async def wait() -> int | None:
        asyncio.get_running_loop().call_later(0.05, waiters.wake)
        return await waiters.wait_for(lambda: next(found), 5.0)

    assert asyncio.run(wait()) == 3
    assert asyncio.run(waiters.wait_for(lambda: None, 0.01)) is None


def test_tabs_share_a_live_source_and_who_opened_it_decides(live: Viewers, tmp_path: Path) -> None:
    live.prepare("webcam:0")
    first, second = (live.get(live.open(name, "webcam:0")) for name in "ab")
    until(lambda: first.state()["labels"] and second.state()["labels"])
    assert FakeCamera.opened == 1 and first.channel is second.channel
    assert first.state()["decides"] and not second.state()["decides"]
    with pytest.raises(ValueError, match="another tab opened this live source"):
        second.record()
    first.record()
    until(lambda: second.state()["recorded"] and second.state()["recorded"]["seconds"] >= 1)
    live.leave("a")
    assert FakeCamera.opened == 1 and second.state()["recorded"] and second.state()["decides"]
    second.record()  # now it may, and ends it
    assert second.state()["recorded"] is None and len(list(tmp_path.glob("*.aedat4"))) == 1


def test_pausing_a_live_source_holds_one_tabs_picture_only(live: Viewers) -> None:
    first, second = (live.get(live.open(name, "webcam:0")) for name in "ab")
    number = newest(first).number
    first.pause()
    held = first.moment.number
    until(lambda: newest(second, max(number, held) + 3, 0.1))
    assert newest(first, held, 0.1) is None and first.moment.number == held and second.playing
    first.resume()
    assert newest(first, held) is not None


def test_eight_viewers_of_a_live_source_cost_no_more_than_one(tmp_path: Path) -> None:
    pushed: list[int] = []

    class Counting(FakeRecognizer):
        def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
            session = super().open(stride=stride, hop=hop)
            push = session.push
            session.push = lambda sample: pushed.append(sample.index) or push(sample)  # type: ignore[method-assign]
            return session

    viewers = Viewers(Counting(), Channels(Settings(opened=lambda _: FakeCamera())))
    try:
        eight = [viewers.get(viewers.open(f"tab {k}", "webcam:0")) for k in range(8)]
        until(lambda: all(viewer.state()["labels"] and newest(viewer, 0, 0.1) for viewer in eight))
        assert len({id(viewer.channel) for viewer in eight}) == 1 == FakeCamera.opened
        shown = eight[0].moment
        assert shown.picture(View()) is shown.picture(View()) and len(pushed) == len(set(pushed))
    finally:
        viewers.close()
    until(lambda: FakeCamera.opened == 0 and not viewer_threads())


def test_what_is_said_of_a_held_picture_is_held_too(live: Viewers) -> None:
    viewer = live.get(live.open("a", "webcam:0"))
    until(lambda: viewer.state()["labels"])
    viewer.pause()
    held = viewer.state()
    until(lambda: viewer.channel.prediction is not viewer.shown.prediction)
    assert [viewer.state()[name] for name in ("labels", "label", "position_us")] == [
        held[name] for name in ("labels", "label", "position_us")
    ]


def test_an_operator_decides_before_a_guest_who_came_first(live: Viewers) -> None:
    guest = live.get(live.open("guest", "webcam:0", operator=False))
    assert guest.decides
    operator = live.get(live.open("operator", "webcam:0"))
    assert operator.decides and not guest.decides


def test_a_driver_that_fails_to_close_keeps_no_other_tab_open(small_recording: Path, capsys) -> None:
    viewers = Viewers(FakeRecognizer(), Channels(Settings()))
    for name in "ab":
        viewers.open(name, small_recording)
    first = next(iter(viewers.counted().values()))

    def fail() -> None:
        raise OSError("the cable is hot")

    first.close = fail  # type: ignore[method-assign]
    viewers.close()
    first.channel.close()
    assert len(viewers) == 0 and not viewer_threads() and "the cable is hot" in capsys.readouterr().err


def test_the_viewer_that_waits_for_the_first_tab_has_no_token(viewers: Viewers, small_recording: Path) -> None:
    viewers.prepare(small_recording)
    assert viewers.get("") is None


def test_a_live_source_can_be_opened_again_at_once(live: Viewers) -> None:
    live.open("a", "webcam:0")
    live.leave("a")
    again = live.get(live.open("a again", "webcam:0"))
    until(lambda: again.state()["labels"])
    assert not again.state()["message"]


def test_an_upload_belongs_to_its_viewer_and_goes_with_it(
    viewers: Viewers, small_recording: Path, tmp_path: Path
) -> None:
    token = viewers.open("tab", small_recording)
    for name in ("one.aedat4", "two.aedat4"):
        viewers.play_upload(token, received(tmp_path, name, small_recording.read_bytes()))
    first = viewers.get(token).address
    assert first.name == "two.aedat4" and first.exists() and len(list(tmp_path.iterdir())) == 1
    viewers.leave("tab")
    assert not list(tmp_path.iterdir()) and viewers.get(token) is None and not viewer_threads()


def test_a_bad_upload_is_refused_and_removed(viewers: Viewers, small_recording: Path, tmp_path: Path) -> None:
    token = viewers.open("tab", small_recording)
    bad = received(tmp_path, "bad.aedat4", b"#!AER-DAT4.0\r\n" + b"\xff" * 100)
    with pytest.raises(RecordingError, match="bad.aedat4"):
        viewers.play_upload(token, bad)
    assert not bad.parent.exists() and viewers.get(token).address == small_recording


def test_uploads_reach_only_readers_that_stand_hostile_files(
    viewers: Viewers, small_recording: Path, tmp_path: Path
) -> None:
    token = viewers.open("tab", small_recording)
    video = received(tmp_path, "holiday.mp4", b"whatever a decoder chokes on")
    with pytest.raises(RecordingError, match="only AEDAT recordings are taken here"):
        viewers.play_upload(token, video)
    assert not video.parent.exists()


def test_predictions_of_what_a_tab_watched_before_can_still_be_saved(viewers: Viewers, small_recording: Path) -> None:
    token = viewers.open("tab", small_recording)
    until(lambda: viewers.get(token).state()["labels"])
    viewers.play(token, small_recording)
    until(lambda: viewers.get(token).state()["labels"])
    found = viewers.get(token).predictions()
    assert [name for name, _ in found] == [small_recording.name] * 2
    assert all(list(predictions.as_jsonl(name)) for name, predictions in found)


def test_viewers_that_nobody_asks_are_freed(viewers: Viewers, small_recording: Path) -> None:
    token = viewers.open("tab", small_recording)
    viewers.free_idle(60)
    assert viewers.get(token) is not None
    viewers.free_idle(-1)
    assert len(viewers) == 0 and not viewer_threads()


def test_viewers_are_bounded_one_a_session_and_end_together(viewers: Viewers, small_recording: Path) -> None:
    for i in range(MOST_VIEWERS):
        viewers.open(f"session {i}", small_recording)
    viewers.open("session 0", small_recording)
    assert len(viewers) == MOST_VIEWERS
    with pytest.raises(ValueError, match="close one of them"):
        viewers.open("one too many", small_recording)
    viewers.close()
    assert len(viewers) == 0 and not viewer_threads()


def test_a_user_with_many_tabs_makes_room_for_others(viewers: Viewers, small_recording: Path) -> None:
    def tabs(user: str, first: int, count: int) -> list[str]:
        return [viewers.open(f"{user} {first + k}", small_recording, user=user) for k in range(count)]

    many = tabs("anna", 0, MOST_VIEWERS)
    with pytest.raises(ValueError, match="close one of them"):
        tabs("anna", MOST_VIEWERS, 1)
    few = tabs("ben", 0, MOST_VIEWERS // 2)
    with pytest.raises(ValueError, match="close one of them"):
        tabs("ben", MOST_VIEWERS, 1)
    assert len(viewers) == MOST_VIEWERS and all(viewers.get(token) for token in few)
    assert [viewers.get(token) is None for token in many] == [True] * len(few) + [False] * (len(many) - len(few))


def test_a_recording_that_cannot_be_begun_is_told_to_who_asked(tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer(), Channels(Settings(opened=lambda _: FakeCamera(), record_to=tmp_path / "gone")))
    viewer = viewers.get(viewers.open("a", "webcam:0"))
    until(lambda: viewer.state()["can_record"])
    (tmp_path / "gone").write_text("a file")
    with pytest.raises((OSError, RecordingError)):
        viewer.record()
    viewers.close()


def test_a_recording_whose_last_watcher_leaves_is_told_on_the_terminal(live: Viewers, capsys) -> None:
    viewer = live.get(live.open("a", "webcam:0"))
    until(lambda: viewer.state()["can_record"])
    viewer.record()
    until(lambda: viewer.state()["recorded"])
    live.leave("a")
    assert ".aedat4" in capsys.readouterr().err


def test_what_is_opened_anew_keeps_its_labels_by_hand(viewers: Viewers, small_recording: Path, tmp_path: Path) -> None:
    token = viewers.open("tab", small_recording)
    tab = viewers.find(token)
    tab.book, tab.upload = SpanBooks(tmp_path).of(small_recording), received(tmp_path, "a.aedat4", b"x").parent
    before = tab.viewer
    viewers.again(token)
    after = viewers.find(token)
    assert after.viewer is not before and after.book is tab.book
    assert after.upload is not None and after.upload.exists()
    viewers.play(token, small_recording)
    assert viewers.find(token).book is None and not after.upload.exists()
