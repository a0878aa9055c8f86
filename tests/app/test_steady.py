"""The big label: it stays until another one does."""

from __future__ import annotations

from app.steady import Steady


def shown(*pushed: tuple[str, float, bool]) -> list[str | None]:
    steady = Steady()
    return [steady.push(*one) for one in pushed]


A, K, SURE_K, DOUBT = ("A", 0.6, False), ("K", 0.6, False), ("K", 0.95, False), ("K", 0.3, True)


def test_the_first_label_is_shown_at_once() -> None:
    assert shown(A) == ["A"] and shown(DOUBT) == [None]


def test_a_label_that_comes_once_or_twice_changes_nothing() -> None:
    assert shown(A, K, A, K, K, A) == ["A"] * 6


def test_one_that_stays_is_shown_and_sooner_when_it_is_sure() -> None:
    assert shown(A, K, K, K) == ["A", "A", "A", "K"]
    assert shown(A, SURE_K, SURE_K) == ["A", "A", "K"]


def test_doubt_is_shown_when_it_stays() -> None:
    assert shown(A, DOUBT, DOUBT, A, DOUBT, DOUBT, DOUBT) == ["A"] * 6 + [None]
