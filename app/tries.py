"""Who guesses passwords is slowed: after ten wrong ones from an address, nobody new signs in from there for a minute.

Those who have signed in from there before go on.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 10
WAIT_S = 60.0
_KEPT = 1000  # addresses, and who signed in where; the oldest are forgotten


class Tries:
    """Counts wrong passwords by address. Not for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # how many, and since when
        self._known: OrderedDict[tuple[str, str], bool] = OrderedDict()  # addresses with names

    def waits(self, address: str, name: str) -> bool:
        """Whether nobody of this name is let in from there now."""
        count, since = self._wrong.get(address, (0, 0.0))
        return count >= MOST and self._clock() - since <= WAIT_S and (address, name) not in self._known

    def right(self, address: str, name: str) -> None:
        """Somebody has signed in."""
        self._known[address, name] = True
        _bound(self._known)

    def wrong(self, address: str) -> None:
        """Somebody gave a wrong password."""
        now = self._clock()
        count, since = self._wrong.pop(address, (0, now))
        count, since = (count + 1, since) if now - since <= WAIT_S else (1, now)
        if count == MOST:
            since = now
            told = f"{MOST} wrong passwords from {address}: nobody new signs in from there for {WAIT_S:.0f} s"
            print(f"velora: {told}", file=sys.stderr, flush=True)
        self._wrong[address] = count, since
        _bound(self._wrong)


def _bound(kept: OrderedDict[str, tuple[int, float]] | OrderedDict[tuple[str, str], bool]) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)
