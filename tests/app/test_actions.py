"""The controls of the page, as the page and programs call them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.access import Access
from app.actions import OPERATORS_ONLY, Actions, Gone
from app.channel import Settings
from app.channels import Channels
from app.models import Models
from app.school import School
from app.viewers import Viewers
from tests.app.conftest import write_square
from tests.app.fakes import FakeCamera, FakeRecognizer, until
from velora.errors import ModelError


class Other(FakeRecognizer):
    name = "other"


def load(name: str, words: object) -> FakeRecognizer:
    if words is not None:
        raise ModelError("the demo's backbone has no text tower")
    return Other()


@pytest.fixture
def viewers() -> Iterator[Viewers]:
    viewers = Viewers(FakeRecognizer(), Channels(Settings()))
    yield viewers
    viewers.close()


@pytest.fixture
def actions(viewers: Viewers, small_recording: Path) -> Actions:
    offers = {"square": small_recording, "again": small_recording}
    models = Models(FakeRecognizer(), load, lambda: {"other": "other"})
    return Actions(viewers, models, offers, Access(folders=(small_recording.parent.resolve(),)), School())


@pytest.fixture
def token(actions: Actions, viewers: Viewers) -> str:
    token = actions.enter("tab", {})
    until(lambda: viewers.get(token).state()["labels"])
    return token


def test_every_control_has_a_name_types_and_words() -> None:
    names = Actions.names()
    assert {"play", "pause", "seek", "speed", "choose", "use_model", "record"} <= set(names) and "act" not in names
    assert names.keys() >= OPERATORS_ONLY
    assert all(method.__doc__ and method.__annotations__["return"] in (str, "str") for method in names.values())


def test_playing(actions: Actions, viewers: Viewers, token: str) -> None:
    viewer = viewers.get(token)
    player = viewer.channel.player
    actions.act("pause", {}, token)
    assert not viewer.playing
    actions.act("seek", {}, token, seconds=1.0)
    until(lambda: viewer.state()["position_us"] - viewer.state()["origin_us"] >= 1_000_000)
    before = viewer.state()["position_us"]
    actions.act("step", {}, token)
    until(lambda: viewer.state()["position_us"] > before)
    actions.act("step", {}, token, count=-1)
    until(lambda: viewer.state()["position_us"] == before)
    actions.act("toggle", {}, token)
    assert viewer.playing
    actions.act("speed", {}, token, times=2.0)
    actions.act("loop", {}, token, on=False)
    assert player.speed == 2.0 and player.loop is False
    actions.act("restart", {}, token)
    until(lambda: viewer.state()["position_us"] < before)


def test_what_is_recognised_and_how(actions: Actions, viewers: Viewers, token: str) -> None:
    channel = viewers.get(token).channel
    actions.act("use_model", {}, token, name="other")
    until(lambda: channel.prediction and channel.prediction.model == "other")
    actions.act("stride", {}, token, samples=2)
    actions.act("denoise", {}, token)
    assert channel.base_stride == 2 and channel.denoise
    actions.act("choose", {}, token, name="again")
    assert viewers.get(token).channel is not channel
    assert viewers.get(token).channel.recognizer.name == "other"  # it stays chosen


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("speed", {"times": 1e9}, "the speed is 0.05 to 20 times"),
        ("speed", {"times": "fast"}, "speed: Input should be a valid number"),
        ("speed", {"tims": 2}, "speed: Unexpected keyword argument"),
        ("seek", {"seconds": [1]}, "seek: Input should be a valid number"),
        ("step", {"count": 0}, "steps are 1 to 1000"),
        ("stride", {"samples": -1}, "the stride is 1 to"),
        ("choose", {"name": "/etc/passwd"}, "'/etc/passwd' is not offered"),
        ("open", {"address": "/etc/passwd"}, "not in a folder that may be opened"),
        ("use_model", {"name": "../../x"}, "there is no model"),
        ("words", {"labels": "one"}, "give 2 to 200 words"),
        ("words", {"labels": "waving, walking"}, "no text tower"),
        ("record", {}, "only live sources"),
        ("_tab", {}, "there is no action '_tab'"),
        ("act", {"name": "play"}, "there is no action 'act'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    actions: Actions, viewers: Viewers, token: str, name: str, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        actions.act(name, {}, token, **arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert viewers.get(token).playing


def test_an_unknown_tab_is_told_apart(actions: Actions) -> None:
    with pytest.raises(Gone):
        actions.act("play", {}, "guessed")


def test_only_operators_record_and_open_other_sources(viewers: Viewers, small_recording: Path) -> None:
    models = Models(FakeRecognizer(), load)
    actions = Actions(viewers, models, {"square": small_recording}, Access(open_to_others=True), School())
    token = actions.enter("tab", {})
    for name, arguments in (("record", {}), ("open", {"address": str(small_recording)}), ("cameras", {})):
        with pytest.raises(ValueError, match="for operators"):
            actions.act(name, {}, token, **arguments)
    assert actions.allows({}) == {"operates": False, "opens": False}
    actions.act("pause", {}, token)


def test_what_is_live_cannot_be_sought_in(tmp_path: Path) -> None:
    viewers = Viewers(FakeRecognizer(), Channels(Settings(opened=lambda _: FakeCamera(), record_to=tmp_path)))
    actions = Actions(viewers, Models(FakeRecognizer(), load), {"cam": "webcam:0"}, Access(), School())
    token = actions.enter("tab", {})
    until(lambda: viewers.get(token).state()["can_record"])
    with pytest.raises(ValueError, match="record it first"):
        actions.act("seek", {}, token, seconds=1.0)
    actions.act("record", {}, token)
    assert viewers.get(token).state()["recorded"]
    actions.act("record", {}, token)
    assert "aedat4" in viewers.get(token).state()["message"]
    viewers.close()


def test_cameras_that_are_found_are_offered_to_operators(
    viewers: Viewers, actions: Actions, token: str, small_recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.actions.camera_addresses", lambda: ["dv:0007", "webcam:0"])
    assert actions.act("cameras", {}, token) == "found dv:0007, webcam:0"
    assert actions.offers(operator=True) == ["square", "again", "dv:0007", "webcam:0"]
    assert actions.offers(operator=False) == ["square", "again"]
    guest = viewers.open("guest", small_recording, operator=False)
    with pytest.raises(ValueError, match="'webcam:0' is not offered here"):
        actions.act("choose", {}, guest, name="webcam:0")


def test_labels_and_exports_go_through_no_link_out_of_the_folders_allowed(viewers: Viewers, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    square = write_square(inside / "a.aedat4", 2)
    outside.mkdir()
    for name in ("velora-labels", "export-csv"):
        (inside / name).symlink_to(outside)
    models = Models(FakeRecognizer(), load, lambda: {"fake": "demo"})
    actions = Actions(viewers, models, {"square": square}, Access(folders=(inside.resolve(),)), School())
    token = actions.enter("tab", {})
    for name, arguments in (
        ("label_folder", {"folder": str(inside)}),
        ("export_folder", {"out": str(inside), "to": "csv"}),
    ):
        with pytest.raises(ValueError, match="not in a folder that may be opened"):
            actions.act(name, {}, token, **arguments)
    assert actions.batch() is None and not list(outside.iterdir())


def test_a_folder_is_labelled_without_what_links_lead_to_elsewhere(viewers: Viewers, tmp_path: Path) -> None:
    square = write_square(tmp_path / "a.aedat4", 2)
    models = Models(FakeRecognizer(), load, lambda: {"fake": "demo"})
    actions = Actions(viewers, models, {"square": square}, Access(folders=(tmp_path.resolve(),)), School())
    actions._batch = Mock()
    actions.act("label_folder", {}, actions.enter("tab", {}), folder=str(tmp_path))
    (_, target, _, options), _ = actions._batch.label.call_args
    assert target == tmp_path.resolve() / "velora-labels" and f"--within={tmp_path.resolve()}" in options
