"""Who guesses passwords is slowed: after ten wrong ones from an address, nobody new signs in from there for a minute.

After fifty for one name, from wherever, nobody signs in by that name from a new address. Those who have signed in from
there before go on.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from streams.text import printable

MOST, MOST_FOR_NAME = 10, 50
WAIT_S = 60.0
_KEPT = 1000  # addresses and names, and who signed in where; the oldest are forgotten
_LONGEST = 100  # characters of a name


class Tries:
    """Counts wrong passwords by address and by name. Not for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()  # how many, and since when
        self._known: OrderedDict[tuple[str, str], bool] = OrderedDict()  # addresses with names

    def waits(self, address: str, name: str) -> bool:
        """Whether nobody who gives this name is let in from there now."""
        return (address, name) not in self._known and any(
            self._is_full(key, most) for key, most in _counters(address, name)
        )

    def _is_full(self, key: tuple[str, str], most: int) -> bool:
        count, since = self._wrong.get(key, (0, 0.0))
        return count >= most and self._clock() - since <= WAIT_S

    def right(self, address: str, name: str) -> None:
        """Somebody has signed in."""
        self._known[address, name] = True
        _bound(self._known)

    def wrong(self, address: str, name: str) -> None:
        """Somebody gave a wrong password."""
        now = self._clock()
        for key, most in _counters(address, name):
            count, since = self._wrong.pop(key, (0, now))
            count, since = (count + 1, since) if now - since <= WAIT_S else (1, now)
            if count == most:
                since = now
                told = f"{most} wrong passwords {' '.join(key)}: nobody new signs in so for {WAIT_S:.0f} s"
                print(f"velora: {printable(told)}", file=sys.stderr, flush=True)
            self._wrong[key] = count, since
        _bound(self._wrong)


def _counters(address: str, name: str) -> tuple[tuple[tuple[str, str], int], ...]:
    """What a wrong password counts for, and how many are too many."""
    return (("from", address), MOST), (("for", name[:_LONGEST]), MOST_FOR_NAME)


def _bound(kept: OrderedDict[tuple[str, str], tuple[int, float]] | OrderedDict[tuple[str, str], bool]) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)
