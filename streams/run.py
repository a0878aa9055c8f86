"""The run loop: samples to the sinks that show them, and by a policy to the recogniser and the sinks of its labels.

run(synchronize(source), recognizer, sinks=[...], policy=Policy.EVERY)

samples ─┬─► Sink.on_sample
         └─► [policy] ─► recogniser ─► Sink.on_prediction
"""

from __future__ import annotations

import enum
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol

from streams.items import Sample


class Policy(enum.Enum):
    """Which samples are recognised: each one (the source waits), or the newest (what it overwrites is dropped)."""

    EVERY = "every"
    LATEST = "latest"


EVERY, LATEST = Policy.EVERY, Policy.LATEST
_OVERTAKEN, _TOO_OLD = "overtaken by a newer one", "too old when its turn came"
_STOP_TIMEOUT_S = 30  # for the label that is being computed; the thread is a daemon


class Session(Protocol):
    """One stream's window of a recogniser."""

    stride: int

    def push(self, sample: Sample, /) -> Any | None: ...


class Recognizer(Protocol):
    """What `run` needs of a recogniser: it opens sessions."""

    def open(self, *, stride: int = 1, hop: int = 1) -> Session: ...


class Sink:
    """Takes what flows out of the road. Derive and override what you need; both calls must return quickly."""

    def on_sample(self, sample: Sample) -> None:
        """Every sample, in order, from the thread that called `run`."""

    def on_prediction(self, prediction: Any) -> None:
        """Every prediction, in order; under LATEST from the recogniser's thread."""


@dataclass
class RunSummary:
    """What a run did so far; readable from other threads while it goes on."""

    samples: int = 0
    predictions: int = 0
    drops: Counter[str] = field(default_factory=Counter)  # samples that were offered to the model in vain, by reason
    every: int = 1  # under LATEST: one sample in so many is offered to the model, so that windows stay evenly spaced

    @property
    def dropped(self) -> int:
        """Samples that were offered to the model in vain."""
        return self.drops.total()


def run(
    samples: Iterable[Sample],
    recognizer: Recognizer,
    *,
    sinks: Sequence[Sink] = (),
    policy: Policy = EVERY,
    stride: int = 1,
    hop: int = 1,
    summary: RunSummary | None = None,
    max_lag_ms: float | None = None,
    pace: Pace | None = None,
) -> RunSummary:
    """Drive samples to their end (or for ever) through the recogniser to the sinks.

    With `max_lag_ms`, samples that arrived longer ago than that when their turn comes are not recognised any more.
    `pace` is what LATEST goes by instead of one of its own, so that `Pace.rebase` can change the stride meanwhile.

    Raises whatever the samples, the recogniser or a sink raise; under LATEST the recogniser runs in a thread of its
    own, whose exception is raised here at the next sample.
    """
    summary = summary or RunSummary()
    session = recognizer.open(stride=stride, hop=hop)
    screen = Screen(sinks, summary)
    if policy is EVERY:
        for sample in samples:
            screen.show(sample)
            _recognize(session, sample, sinks, summary)
        return summary
    with _LatestRecognizer(session, pace or Pace(stride), sinks, summary, max_lag_ms) as latest:
        for sample in samples:
            screen.show(sample)
            latest.offer(sample)
    return summary


class Screen:
    """What sinks see of the samples: not those that lead to a place, but that there was a jump."""

    def __init__(self, sinks: Sequence[Sink], summary: RunSummary) -> None:
        self._sinks, self._summary, self._jumped = sinks, summary, False

    def show(self, sample: Sample) -> None:
        self._jumped = self._jumped or sample.discontinuity
        if sample.lead:
            return
        seen = replace(sample, discontinuity=True) if self._jumped else sample
        self._summary.samples += 1
        self._jumped = False
        for sink in self._sinks:
            sink.on_sample(seen)


def _recognize(session: Session, sample: Sample, sinks: Sequence[Sink], summary: RunSummary) -> None:
    deliver(session.push(sample), sample, sinks, summary)


def deliver(prediction: Any | None, sample: Sample, sinks: Sequence[Sink], summary: RunSummary) -> None:
    """Give sinks what the recogniser said at a sample, if anything."""
    if prediction is not None and not sample.lead:
        summary.predictions += 1
        for sink in sinks:
            sink.on_prediction(prediction)


class Mailbox:
    """One slot that holds the newest sample; what it overwrites is counted, its discontinuity passed on.

    A gift, a sample beyond what is due, gives way to what is in the slot, and to what comes: it is `missed`, no drop.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sample: Sample | None = None
        self._broken = False  # a discontinuity whose sample was never taken
        self._gift = False  # what is in the slot
        self.closed = False
        self.dropped = self.missed = 0

    def put(self, sample: Sample, *, wait: bool = False, gift: bool = False) -> None:
        """Replace what is in the slot, or `wait` until it is empty."""
        with self._changed:
            if wait:
                self.wait_empty()
            if gift and self._sample is not None:
                self.missed += 1
                self._pass_by(sample)
                return
            self._clear()
            self._broken = self._broken or sample.discontinuity
            self._sample, self._gift = sample, gift
            self._changed.notify_all()

    def wait_empty(self) -> None:
        """Wait until the slot's sample was taken, or nobody takes any more."""
        with self._changed:
            while self._sample is not None and not self.closed:
                self._changed.wait(timeout=1.0)

    def pass_by(self, sample: Sample) -> None:
        """Leave a new sample out, but not its discontinuity, which stands behind what is in the slot."""
        with self._changed:
            self._pass_by(sample)

    def skip(self, sample: Sample) -> None:
        """Leave out a sample that was taken, but not its discontinuity."""
        with self._changed:
            self._broken = self._broken or sample.discontinuity

    def _pass_by(self, sample: Sample) -> None:
        if sample.discontinuity:
            self._clear()
            self._broken = True

    def _clear(self) -> None:
        if self._sample is not None:
            self.missed += self._gift
            self.dropped += not self._gift
            self._sample = None

    def take(self) -> Sample | None:
        """Wait for a sample; None once the mailbox is closed."""
        with self._changed:
            while self._sample is None and not self.closed:
                self._changed.wait(timeout=1.0)
            if self._sample is None or self.closed:
                return None
            sample = replace(self._sample, discontinuity=self._broken)
            self._sample, self._broken = None, False
            self._changed.notify_all()
            return sample

    def close(self) -> None:
        """Wake the taker with nothing."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class Pace:
    """Which samples a model that may be too slow is offered: one in `every`, so that its windows stay evenly spaced.

    `every` takes the divisors of the stride, then its multiples; beyond the stride the stride grows with it. It begins
    at the stride, which fills the first window without a drop on a busy machine too, and falls where there is room:
    where no sample took longer to compute than would lie between two. Labels more often than the stride asks are a
    gift: the first one that is missed ends it, and each time it does, the next trial comes later.
    """

    MOST = 1_000  # samples from one to the next, as far as windows can be spread
    _TRIAL = 8  # samples taken before a verdict
    _RELAX_AFTER = 24  # samples in a row without a drop before a faster pace is tried
    _LONGEST = 16  # times that, where trials have failed
    _ROOM = 0.8  # share of its time that the model may be busy at the pace tried: some is left to what else runs

    def __init__(self, stride: int) -> None:
        self.base = self.every = stride
        self.most = self.MOST  # less where windows would not fit into what is played again and again
        self._lock = threading.Lock()
        self._rebased = False  # not told by `update` yet
        self._patience, self._failed = self._RELAX_AFTER, 0  # the gift that ended last
        self._begin()

    def rebase(self, stride: int) -> None:
        """Another stride from now on; safe from any thread."""
        with self._lock:
            self.base, self._rebased = stride, True
            self._patience, self._failed = self._RELAX_AFTER, 0
            self._change(stride)

    def _begin(self) -> None:
        self._taken = self._drops = 0
        self._busy = self._elapsed = self._longest = 0.0

    @property
    def stride(self) -> int:
        """The stride in force."""
        return max(self.base, self.every)

    def update(self, drops: int, busy_s: float, elapsed_s: float) -> bool:
        """After each sample taken: drops, time computing and time passed since the last. True if `every` changed."""
        with self._lock:
            rebased, self._rebased = self._rebased, False
            return self._update(drops, busy_s, elapsed_s) or rebased

    def _update(self, drops: int, busy_s: float, elapsed_s: float) -> bool:
        self._taken, self._drops = self._taken + 1, self._drops + drops
        self._busy, self._elapsed = self._busy + busy_s, self._elapsed + elapsed_s
        self._longest = max(self._longest, busy_s)
        if self._is_too_fast():
            if self.every < self.base:
                self._patience = min(2 * self._patience, self._LONGEST * self._RELAX_AFTER)
                self._failed = self.every
            return self._change(self._slower())
        if self._taken < (self._patience if self.every <= self.base else self._RELAX_AFTER):
            return False
        if self.every <= self._failed:  # it has held this time
            self._patience = self._RELAX_AFTER
        return self._change(self._faster() if self._has_room() else self.every)

    def settle(self) -> None:
        """After a gap: windows fill anew, and what comes may come at once, so there is no room for gifts."""
        with self._lock:
            if self.every < self.base:
                self._change(self.base)

    def _is_too_fast(self) -> bool:
        if self.every < self.base:
            return self._drops > 0
        return self._taken >= self._TRIAL and self._drops * 4 > self._taken

    def _has_room(self) -> bool:
        """Whether each sample since the last change would have kept the next faster pace, and most with ease."""
        faster = self._faster() / self.every
        interval = max(self._elapsed, 1e-9) / self._taken * faster
        return self._drops == 0 and self._longest < interval and self._busy / self._taken < self._ROOM * interval

    def _change(self, every: int) -> bool:
        changed = every != self.every
        self.every = every
        self._begin()
        return changed

    def _slower(self) -> int:
        if self.every >= self.base:
            return self.every + self.base if self.every + self.base <= self.most else self.every
        return next(n for n in range(self.every + 1, self.base + 1) if self.base % n == 0)

    def _faster(self) -> int:
        if self.every > self.base:
            return self.every - self.base
        return next((n for n in range(self.every - 1, 0, -1) if self.base % n == 0), 1)


class _LatestRecognizer:
    """The recogniser's thread under LATEST, behind a mailbox."""

    def __init__(
        self, session: Session, pace: Pace, sinks: Sequence[Sink], summary: RunSummary, max_lag_ms: float | None
    ) -> None:
        self.session, self.sinks, self.summary, self.max_lag_ms = session, sinks, summary, max_lag_ms
        self.mailbox, self.pace = Mailbox(), pace
        summary.every = self.pace.every
        self._lead: list[Sample] = []
        self._phase = 0  # the index from which one sample in `pace.every` is offered
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="recognizer", daemon=True)

    def __enter__(self) -> _LatestRecognizer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mailbox.close()
        self._thread.join(_STOP_TIMEOUT_S)
        if error is None:
            self._raise()

    def offer(self, sample: Sample) -> None:
        """Hand over the newest sample; waits only for the window of a place that was sought. Raises what ended the
        thread."""
        self._raise()
        if sample.lead:
            self._lead.append(sample)
            return
        if sample.discontinuity:
            self.pace.settle()
            self.summary.every = self.pace.every
        lead, self._lead = self._lead, []
        if lead and self.pace.every > self.pace.base:  # the lead fills a window at the stride asked for, and no other
            self.pace.rebase(self.pace.base)
            self.session.stride = self.summary.every = self.pace.base
        for before in lead:
            if (sample.index - before.index) % self.pace.stride:
                self.mailbox.pass_by(before)
            else:
                self.mailbox.put(before, wait=True)
        if lead:
            self._phase = sample.index
            self.mailbox.put(sample, wait=True)
            self.mailbox.wait_empty()  # what comes next must not overtake it: it has the first label
            self._raise()
        elif (sample.index - self._phase) % self.pace.every:
            self.mailbox.pass_by(sample)
        else:
            self.mailbox.put(sample, gift=bool((sample.index - self._phase) % self.pace.base))

    def _is_late(self, sample: Sample) -> bool:
        if self.max_lag_ms is None or sample.arrival_ns is None:
            return False
        return time.monotonic_ns() - sample.arrival_ns > self.max_lag_ms * 1e6

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._recognize_latest()
        except BaseException as error:  # raised again at the next offer
            self._failure = error
            self.mailbox.close()

    def _recognize_latest(self) -> None:
        done, missed = time.perf_counter(), 0
        while (sample := self.mailbox.take()) is not None:
            began = time.perf_counter()
            late = self._is_late(sample)
            if late:
                self.mailbox.skip(sample)
                self.summary.drops[_TOO_OLD] += 1
            else:
                _recognize(self.session, sample, self.sinks, self.summary)
            last, done = done, time.perf_counter()
            so_far = self.mailbox.dropped + self.mailbox.missed
            drops, missed = so_far - missed + late, so_far
            self.summary.drops[_OVERTAKEN] = self.mailbox.dropped
            if self.pace.update(drops, done - began, done - last):
                self.session.stride, self.summary.every = self.pace.stride, self.pace.every
