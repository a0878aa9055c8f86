"""A label that people can read: it changes when another one stays, not whenever two take turns."""

from __future__ import annotations

_STAYS = 3  # predictions in a row
_SURE, _STAYS_SURE = 0.9, 2  # one of which the model is that sure has to stay less long


class Steady:
    """Hysteresis over the labels of a stream; None stands for a label that is not to be relied on."""

    def __init__(self) -> None:
        self.label: str | None = None
        self.known = False  # whether there has been a prediction
        self._candidate: str | None = None
        self._count = 0

    def push(self, label: str, confidence: float, unsure: bool) -> str | None:
        """The label to show after this prediction."""
        now = None if unsure else label
        self._count = self._count + 1 if now == self._candidate and self.known else 1
        self._candidate = now
        enough = _STAYS_SURE if not unsure and confidence >= _SURE else _STAYS
        if not self.known or self._count >= enough:
            self.label = now
        self.known = True
        return self.label
