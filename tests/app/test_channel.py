"""A channel plays a recording or follows a live source, and tells in a line what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.channel import Channel, Settings
from app.channels import Channels
from app.shared_step import SharedStep
from streams import StreamError, open_source
from streams.items import Item
from tests.app.fakes import LABELS, FakeCamera, FakeRecognizer, FakeSession, prediction, sample, until, viewer_threads


@pytest.fixture
def channel(small_recording: Path) -> Iterator[Channel]:
    channel = Channel(small_recording, FakeRecognizer(), SharedStep())
    yield channel
    channel.close()


def test_it_shows_moments_and_labels(channel: Channel) -> None:
    until(lambda: channel.moment and channel.prediction)
    assert channel.prediction.label in LABELS and not channel.failure
    assert channel.stride == 4  # 133 ms at 30 fps
    until(lambda: channel.meters.label.percentiles() and channel.meters.source.per_second() > 1)
    until(lambda: any(row[1] is not None for row in channel.timeline.since(0)["rows"]))


def test_a_window_fits_into_a_short_recording_however_slow_the_model_is(channel: Channel) -> None:
    until(lambda: channel.moment)
    for _ in range(400):
        channel._pace.update(drops=1, busy_s=1.0, elapsed_s=1.0)
    assert channel._pace.stride == 8  # seven of them among 60 samples


def test_numbers_of_moments_rise_from_one_channel_to_the_next(channel: Channel, small_recording: Path) -> None:
    until(lambda: channel.moment)
    number = channel.moment.number
    other = Channel(small_recording, FakeRecognizer(), SharedStep())
    until(lambda: other.moment)
    assert other.moment.number > number
    other.close()


def test_watchers_are_woken_until_they_leave(channel: Channel) -> None:
    woken: list[int] = []
    first, second = lambda: woken.append(1), lambda: woken.append(2)
    channel.watch(first)
    channel.watch(second)
    assert channel.owner is first
    until(lambda: {1, 2} <= set(woken))
    assert channel.leave(first) == 1 and channel.owner is second
    assert channel.leave(second) == 0 and channel.leave(second) == 0


def test_close_joins_the_threads(small_recording: Path) -> None:
    channel = Channel(small_recording, FakeRecognizer(), SharedStep())
    until(lambda: channel.moment)
    assert viewer_threads()
    channel.close()
    channel.close()
    assert not viewer_threads()


def test_a_bad_recording_becomes_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.aedat4"
    path.write_bytes(b"not a recording\n" * 10)
    channel = Channel(path, FakeRecognizer(), SharedStep())
    until(lambda: channel.failure)
    assert channel.failure.startswith("bad.aedat4") and "\n" not in channel.failure and channel.ended
    channel.close()


def test_what_has_ended_is_not_recorded(tmp_path: Path) -> None:
    class Broken(FakeCamera):
        def __iter__(self) -> Iterator[Item]:
            raise StreamError("it was unplugged")
            yield

    channel = Channel("dv:", FakeRecognizer(), SharedStep(), Settings(opened=lambda _: Broken(), record_to=tmp_path))
    until(lambda: channel.failure)
    with pytest.raises(ValueError, match="the source has ended"):
        channel.start_recording()
    assert not channel.can_record and not list(tmp_path.iterdir())
    channel.close()


def test_a_failing_model_becomes_one_line(small_recording: Path) -> None:
    class Failing(FakeRecognizer):
        def open(self, *, stride: int = 1, hop: int = 1) -> FakeSession:
            raise RuntimeError("out\nof memory")

    channel = Channel(small_recording, Failing(), SharedStep())
    until(lambda: channel.failure == "out of memory")
    channel.close()


def test_an_address_that_is_none_becomes_one_line() -> None:
    channel = Channel("nonsense:7", FakeRecognizer(), SharedStep())
    until(lambda: "no such kind of source" in channel.failure)
    channel.close()


def test_labels_of_what_was_played_before_a_restart_are_not_shown(channel: Channel) -> None:
    until(lambda: channel.prediction)
    channel.close()
    shown = channel.prediction
    channel.on_sample(sample(1_000, discontinuity=True))
    channel.on_prediction(prediction(40, "2", 1.0))
    assert channel.stale and channel.prediction is shown
    channel.on_sample(sample(1_001))
    channel.on_prediction(prediction(1_001, "JOKER", 1.0))
    assert not channel.stale and channel.prediction.label == "JOKER" and channel.steady.shown == "JOKER"


def test_another_model_goes_on_with_the_same_stream(channel: Channel) -> None:
    class Other(FakeRecognizer):
        name = "other"

    until(lambda: channel.prediction)
    channel.use(Other())
    assert channel.stale and channel.prediction is None
    until(lambda: channel.prediction and channel.prediction.model == "other")
    assert channel.recognizer.name == "other" and not channel.failure


def test_what_the_model_before_still_says_is_not_shown(channel: Channel) -> None:
    until(lambda: channel.prediction)
    channel.close()
    channel.use(FakeRecognizer())
    late = prediction(channel.moment.sample.index)
    late.model = "the one before"
    channel.on_prediction(late)
    assert channel.prediction is None and channel.stale


def test_a_paused_picture_has_a_label_of_the_model_that_was_swapped_in(channel: Channel) -> None:
    class Other(FakeRecognizer):
        name = "other"

    until(lambda: channel.prediction)
    channel.player.pause()
    channel.use(Other())
    until(lambda: channel.prediction and channel.prediction.model == "other")
    assert channel.player.paused


def test_a_live_clock_that_begins_anew_begins_the_timeline_anew() -> None:
    channel = Channel("webcam:0", FakeRecognizer(), SharedStep(), Settings(opened=lambda _: FakeCamera()))
    until(lambda: channel.moment)
    channel.close()
    number, timeline = channel.number, channel.timeline
    after = channel.moment.sample
    channel.on_sample(replace(after, index=after.index + 1, t_end_us=after.t_end_us + 1, discontinuity=True))
    assert channel.timeline is timeline
    early = after.t_end_us - 50_000_000
    channel.on_sample(replace(after, index=after.index + 2, t_start_us=early - 1, t_end_us=early, discontinuity=True))
    assert channel.number > number and channel.timeline is not timeline and channel.timeline.origin_us == early - 1
    until(lambda: FakeCamera.opened == 0)


def test_the_stride_can_be_changed_and_goes_back_to_what_was_trained(channel: Channel) -> None:
    until(lambda: channel.prediction)
    channel.set_stride(7)
    assert channel.base_stride == 7
    until(lambda: channel.switch.stride == 7)
    channel.set_stride(None)
    assert channel.base_stride == 4


def test_noise_is_taken_out_from_now_on(channel: Channel) -> None:
    until(lambda: channel.moment)
    assert not channel.denoise and not any("noise" in reason for reason in channel.player.counts)
    channel.denoise = True
    until(lambda: any("noise" in reason for reason in channel.player.counts))


def test_a_live_source_is_followed_and_recorded(tmp_path: Path) -> None:
    settings = Settings(opened=lambda _: FakeCamera(), record_to=tmp_path)
    channel = Channel("webcam:0", FakeRecognizer(), SharedStep(), settings)
    assert channel.is_live and channel.player is None
    until(lambda: channel.prediction)
    channel.start_recording()
    until(lambda: channel.recorded and channel.recorded.seconds >= 1)
    line, well = channel.stop_recording()
    assert well and ".aedat4" in line and channel.recorded is None
    recording = next(tmp_path.glob("*.aedat4"))
    rows = recording.with_name(f"{recording.stem}.labels.csv").read_text().splitlines()[1:]
    ends = [int(row.split(",")[2]) for row in rows]
    assert rows and ends == sorted(ends)
    clip = tmp_path / "clip.aedat4"
    channel.start_clip(clip)
    until(lambda: channel.recorded and channel.recorded.size > 0)
    with pytest.raises(ValueError, match="being recorded already"):
        channel.start_recording()
    channel.close()
    assert clip.exists() and not clip.with_name("clip.labels.csv").exists()
    until(lambda: FakeCamera.opened == 0)


def test_two_viewers_of_a_recording_decode_each_packet_once(
    small_recording: Path, decodes: Counter[tuple[str, int]]
) -> None:
    with open_source(small_recording):
        looked_at = set(decodes)  # to open it
    decodes.clear()
    channels, wake = Channels(Settings()), lambda: None
    viewers = []
    for _ in range(2):  # each plays it more than once, as fast as it can
        viewers.append(channel := channels.join(small_recording, FakeRecognizer(), wake))
        channel.player.speed = None
        until(lambda channel=channel: channel.failure or (channel.moment and channel.moment.sample.index > 150))
        assert not channel.failure
    assert len(decodes) == 2 * 60
    assert all(count == 1 for packet, count in decodes.items() if packet not in looked_at)
    assert len(looked_at) <= 4
    for channel in viewers:
        channels.leave(channel, wake)


def test_only_live_sources_are_recorded(channel: Channel, tmp_path: Path) -> None:
    until(lambda: channel.moment)
    assert not channel.can_record
    with pytest.raises(ValueError, match="only live sources are recorded"):
        channel.start_recording()
