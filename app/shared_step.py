"""One recogniser for all who watch: what they push at the same moment is one step, and each may change the model.

shared = SharedStep()
switch = Switch(recognizer, shared)            # what `run` takes as its recogniser
run(samples, switch, …)                        # in a thread a stream
switch.use(another)                            # from any thread, while it runs
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora.errors import NotFiniteError

if TYPE_CHECKING:
    from streams import Sample
    from velora import Prediction, Recognizer
    from velora.session import Session


@dataclass(eq=False)
class _Push:
    session: Session
    sample: Sample
    done: bool = False
    prediction: Prediction | None = None
    error: Exception | None = None


class SharedStep:
    """Makes one step of what waits while another step is computed; any number of threads push."""

    def __init__(self) -> None:
        self._lock, self._turn = threading.Lock(), threading.Lock()
        self._waiting: list[_Push] = []

    def push(self, session: Session, sample: Sample) -> Prediction | None:
        """As `session.push(sample)`, which it equals. Raises what that raises; the others' steps go on."""
        push = _Push(session, sample)
        with self._lock:
            self._waiting.append(push)
        with self._turn:  # whoever had it before may have done ours
            if not push.done:
                with self._lock:
                    pushes, self._waiting = self._waiting, []
                by_recognizer: dict[Recognizer, list[_Push]] = {}
                for one in pushes:
                    by_recognizer.setdefault(one.session.recognizer, []).append(one)
                for recognizer, own in by_recognizer.items():
                    _step(recognizer, own)
        if push.error is not None:
            raise push.error
        return push.prediction


def _step(recognizer: Recognizer, pushes: list[_Push]) -> None:
    try:
        if len(pushes) > 1:
            found = recognizer.step([(push.session, push.sample) for push in pushes])
            for push, prediction in zip(pushes, found, strict=True):
                push.prediction, push.done = prediction, True
            return
    except NotFiniteError as error:  # the others have been recognised
        for k, push in enumerate(pushes):
            push.prediction, push.error, push.done = error.predictions[k], error if k in error.failed else None, True
        return
    except Exception:  # one of them may be to blame, or may have changed its recogniser just now
        pass
    for push in pushes:
        try:
            push.prediction = push.session.push(push.sample)
        except Exception as error:
            push.error = error
        push.done = True


class Switch:
    """A recogniser for one run, which can be exchanged meanwhile; it is its own session."""

    def __init__(self, recognizer: Recognizer, shared: SharedStep) -> None:
        self._recognizer, self._shared = recognizer, shared
        self._lock = threading.Lock()
        self._session: Session | None = None

    @property
    def recognizer(self) -> Recognizer:
        """The one in use."""
        return self._recognizer

    def open(self, *, stride: int = 1, hop: int = 1) -> Switch:
        """Begin a stream: windows of samples `stride` apart, a label every `hop` samples."""
        with self._lock:
            self._session = self._recognizer.open(stride=stride, hop=hop)
        return self

    def use(self, recognizer: Recognizer) -> None:
        """Go on with another one: at once with the same window where its backbone is the same, else with a new one."""
        with self._lock:
            self._recognizer = recognizer
            if self._session is None:
                return
            if self._session.recognizer.config.backbone == recognizer.config.backbone:
                self._session.swap(recognizer)
            else:
                self._session = recognizer.open(stride=self._session.stride, hop=self._session.hop)

    @property
    def stride(self) -> int:
        """Samples from one sample of a window to the next."""
        return self._opened().stride

    @stride.setter
    def stride(self, value: int) -> None:
        self._opened().stride = value

    def push(self, sample: Sample) -> Prediction | None:
        """Take a sample; the prediction of the window that ends with it, where one is due."""
        return self._shared.push(self._opened(), sample)

    def _opened(self) -> Session:
        with self._lock:
            assert self._session is not None, "open it first"
            return self._session
