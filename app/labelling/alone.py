"""A recogniser for streams that fail alone: where what it says of one is no number, the others go on."""

from __future__ import annotations

from collections.abc import Sequence

from streams import Sample
from velora import Prediction, Recognizer
from velora.errors import NotFiniteError
from velora.session import Session


class Alone:
    """Steps a recogniser, and remembers whom it failed."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._failed: dict[Session, str] = {}

    def open(self, *, stride: int = 1, hop: int = 1) -> Session:
        """A session for one stream."""
        return self._recognizer.open(stride=stride, hop=hop)

    def step(self, pairs: Sequence[tuple[Session, Sample]], /) -> Sequence[Prediction | None]:
        """Predictions of `pairs`; None also where the recogniser failed, of which `why` tells."""
        try:
            return self._recognizer.step(pairs)
        except NotFiniteError as error:
            self._failed |= {pairs[k][0]: str(error) for k in error.failed}
            return error.predictions

    def why(self, session: Session) -> str:
        """Why a session has no more predictions; an empty text where it has. Asked once, it is forgotten."""
        return self._failed.pop(session, "")
