"""The picture that a tab keeps of what it shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from app.snapshot import snapshot
from app.strip import Moment
from app.viewer import Shown
from tests.app.fakes import LABELS, prediction, sample


def picture(held: Any, newest: Any, *, stale: bool = False) -> bytes:
    """Of a tab that holds a picture with one prediction, while the feed has come to another."""
    channel = SimpleNamespace(
        name="a feed",
        timeline=None,
        recognizer=SimpleNamespace(name="demo", random_parts=()),
        prediction=newest,
        stale=False,
    )
    shown = Shown(Moment(1, sample(0, 9), None, 0.0), held, None, stale)
    return snapshot(SimpleNamespace(shown=shown, channel=channel))  # type: ignore[arg-type]


def test_a_picture_that_is_held_has_the_label_of_its_own_moment() -> None:
    then, now = prediction(0, LABELS[0]), prediction(9, LABELS[1])
    assert picture(then, now) == picture(then, then) != picture(now, now)
    assert picture(then, now, stale=True) == picture(None, now) != picture(then, now)
