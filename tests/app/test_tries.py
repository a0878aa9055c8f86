"""Who guesses passwords is slowed."""

from __future__ import annotations

import pytest

from app.tries import MOST, MOST_FOR_NAME, WAIT_S, Tries


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tries(clock: Clock) -> Tries:
    return Tries(clock)


def test_after_some_wrong_passwords_nobody_new_is_let_in_from_there_for_a_minute(
    tries: Tries, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(MOST):
        assert not tries.waits("1.2.3.4", "anna")
        tries.wrong("1.2.3.4", "anna")
    assert tries.waits("1.2.3.4", "anna") and not tries.waits("5.6.7.8", "anna")
    assert "wrong passwords from 1.2.3.4" in capsys.readouterr().err
    clock.now = WAIT_S + 1
    assert not tries.waits("1.2.3.4", "anna")
    tries.wrong("1.2.3.4", "anna")
    assert not tries.waits("1.2.3.4", "anna")


def test_guesses_for_one_name_count_wherever_they_come_from(
    tries: Tries, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    tries.right("home", "anna")
    for k in range(MOST_FOR_NAME):
        assert not tries.waits(f"1.2.3.{k}", "anna")
        tries.wrong(f"1.2.3.{k}", "anna")
    assert tries.waits("5.6.7.8", "anna") and not tries.waits("5.6.7.8", "ben") and not tries.waits("home", "anna")
    assert "wrong passwords for anna" in capsys.readouterr().err
    clock.now = WAIT_S + 1
    assert not tries.waits("5.6.7.8", "anna")


def test_who_has_signed_in_from_there_goes_on(tries: Tries) -> None:
    tries.right("1.2.3.4", "anna")
    for _ in range(2 * MOST):
        tries.wrong("1.2.3.4", "anna")
    assert not tries.waits("1.2.3.4", "anna") and tries.waits("1.2.3.4", "ben") and tries.waits("1.2.3.4", "")


def test_slips_now_and_then_do_not_count(tries: Tries, clock: Clock) -> None:
    for k in range(5 * MOST):
        clock.now = k * WAIT_S / (MOST - 1) * 1.01
        tries.wrong("1.2.3.4", "anna")
        assert not tries.waits("1.2.3.4", "")


def test_many_addresses_take_no_more_memory(tries: Tries) -> None:
    for k in range(3000):
        tries.wrong(str(k), "x" * 1000 + str(k))
        tries.right(str(k), "anna")
    assert len(tries._wrong) == len(tries._known) == 1000
