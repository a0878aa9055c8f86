"""All tabs of the page, by the token that each got when it loaded; what they may watch, and who they are."""

from __future__ import annotations

import secrets
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.channel import one_line
from app.channels import Channels
from app.spans import SpanBook
from app.viewer import Viewer
from streams import RecordingError, Source
from streams.source import kind_of

if TYPE_CHECKING:
    from velora import Recognizer

_PREPARED = ""  # the token of the viewer that waits for the first tab; no tab has it
_JUST_STARTED_S = 3.0
MOST_VIEWERS = 16
_MOST_MEGAPIXELS = 10  # of an upload's pictures
_KEPT = 8  # sources whose predictions a tab can still save


@dataclass
class Tab:
    """What a token stands for."""

    session: str  # Gradio's name of the tab
    viewer: Viewer
    recognizer: Recognizer  # chosen, for what is opened next too
    operator: bool = True  # who may decide how a live source is read
    user: str = ""  # who has signed in, where people do
    book: SpanBook | None = None  # the labels by hand of what it watches, once somebody looked
    upload: Path | None = None  # a folder that goes when the viewer does
    turn: threading.Lock = field(default_factory=threading.Lock)  # of what guests have done one after the other
    asked: float = field(default_factory=time.monotonic)  # when it last asked for a picture

    def close(self) -> None:
        """Free the viewer, and what was uploaded for it."""
        self.viewer.close()
        if self.upload is not None:
            shutil.rmtree(self.upload, ignore_errors=True)


class Viewers:
    """Makes, finds and frees viewers; each call may come from any thread."""

    def __init__(self, recognizer: Recognizer, channels: Channels) -> None:
        self._recognizer, self._channels = recognizer, channels
        self._lock = threading.Lock()
        self._tabs: dict[str, Tab] = {}

    def __len__(self) -> int:
        return len(self._tabs)

    def prepare(self, recording: Path | str) -> None:
        """Play for the first tab while the server starts: by the time it shows, its first window is full."""
        with self._lock:
            self._tabs[_PREPARED] = Tab("", self._make(recording, self._recognizer), self._recognizer)

    def open(self, session: str, recording: Path | str, *, operator: bool = True, user: str = "") -> str:
        """A viewer for a new tab; returns its token. Raises ValueError where there are MOST_VIEWERS already.

        A user who has two tabs less than another one gets a place of that one's, so that nobody keeps others out.
        """
        self.leave(session)  # a session has one viewer
        token = secrets.token_urlsafe()
        with self._lock:
            full = len(self._tabs) >= MOST_VIEWERS
            spare = self._spare(user) if full else None
            if full and spare is None:
                raise ValueError(f"{MOST_VIEWERS} tabs watch already: close one of them, then reload this page")
            gone = self._tabs.pop(spare) if spare is not None else None
            viewer = self._prepared(recording) if operator else None
            viewer = viewer or self._make(recording, self._recognizer, operator=operator)
            self._tabs[token] = Tab(session, viewer, self._recognizer, operator, user)
        if gone is not None:
            gone.close()
        return token

    def _spare(self, user: str) -> str | None:
        """The token of the tab that makes room for a user's, if one must: the first of who has most."""
        held = Counter(tab.user for tab in self._tabs.values())
        most, count = max(held.items(), key=lambda item: item[1])
        if count < held[user] + 2:
            return None
        return next(token for token, tab in self._tabs.items() if tab.user == most and token != _PREPARED)

    def _make(self, recording: Path | str, recognizer: Recognizer, *, operator: bool = True) -> Viewer:
        return Viewer(self._channels, recording, recognizer, operator=operator)

    def _prepared(self, recording: Path | str) -> Viewer | None:
        """The viewer that waits for the first tab, if it plays this recording; from the start if it waited long."""
        prepared = self._tabs.get(_PREPARED)
        if prepared is None or prepared.viewer.address != recording:
            return None
        del self._tabs[_PREPARED]
        player = prepared.viewer.channel.player
        if player is not None and time.monotonic() - prepared.asked > _JUST_STARTED_S:
            player.restart()
        return prepared.viewer

    def find(self, token: str) -> Tab | None:
        """The tab of a token, which is thereby known to be in use; None if there is none (any more)."""
        tab = self._tabs.get(token) if token != _PREPARED else None
        if tab is not None:
            tab.asked = time.monotonic()
        return tab

    def get(self, token: str) -> Viewer | None:
        """The viewer of a token; None if there is none (any more)."""
        tab = self.find(token)
        return tab.viewer if tab is not None else None

    def play(self, token: str, recording: Path | str) -> None:
        """Give a tab another recording or live source."""
        self._replace(token, recording, None)

    def again(self, token: str) -> None:
        """Open what a tab watches anew, after a failure; its labels by hand stay where they are."""
        with self._lock:
            old = self._tabs.get(token)
            if old is not None:
                viewer = self._made_anew(old, old.viewer.address)
                self._tabs[token] = replace(old, viewer=viewer)
                old.upload = None
        if old is not None:
            old.close()

    def play_upload(self, token: str, uploaded: Path) -> None:
        """Give a tab a recording of its own, which is deleted with its viewer, and its folder with it.

        Raises RecordingError for a bad one, which is deleted at once.
        """
        try:
            if not kind_of(uploaded).hardened:
                raise RecordingError(f"{uploaded}: only AEDAT recordings are taken here; convert it by `velora record`")
            with self._channels.settings.opened(uploaded) as source:
                _check_size(uploaded, source)
            self._replace(token, uploaded, uploaded.parent)
        except BaseException:
            shutil.rmtree(uploaded.parent, ignore_errors=True)
            raise

    def _replace(self, token: str, recording: Path | str, upload: Path | None) -> None:
        with self._lock:
            old = self._tabs.get(token)
            if old is not None:
                self._tabs[token] = replace(old, viewer=self._made_anew(old, recording), book=None, upload=upload)
        if old is not None:
            old.close()
        elif upload is not None:  # the tab was closed meanwhile
            shutil.rmtree(upload, ignore_errors=True)

    def _made_anew(self, tab: Tab, recording: Path | str) -> Viewer:
        """One that goes on for a tab's, with what that has predicted."""
        viewer = self._make(recording, tab.recognizer, operator=tab.operator)
        viewer.earlier = tab.viewer.predictions()[-_KEPT:]
        return viewer

    def leave(self, session: str) -> None:
        """The tab of a session was closed."""
        self._free([token for token, tab in list(self._tabs.items()) if tab.session == session])

    def free_idle(self, idle_s: float) -> None:
        """Free the viewers whose tabs have not asked for a picture for so long."""
        oldest = time.monotonic() - idle_s
        self._free([token for token, tab in list(self._tabs.items()) if tab.asked < oldest])

    def close(self) -> None:
        """Free all."""
        self._free(list(self._tabs))

    def counted(self) -> Mapping[str, Viewer]:
        """All viewers that tabs have, by token."""
        return {token: tab.viewer for token, tab in list(self._tabs.items()) if token != _PREPARED}

    def _free(self, tokens: list[str]) -> None:
        with self._lock:
            tabs = [self._tabs.pop(token) for token in tokens if token in self._tabs]
        for tab in tabs:  # all at once: one after the other, many viewers would take long to end
            if not tab.viewer.channel.is_live:  # which others may watch
                tab.viewer.channel.stop()
        for tab in tabs:
            try:
                tab.close()
            except Exception as error:  # a driver's; the others are freed all the same
                print(f"velora: {one_line(error, tab.viewer.address)}", file=sys.stderr)


def _check_size(uploaded: Path, source: Source) -> None:
    """Raises RecordingError for pictures of which a few would fill the memory."""
    for width, height in filter(None, (source.event_size, source.frame_size)):
        if width * height > _MOST_MEGAPIXELS * 1_000_000:
            told = f"pictures of {width} x {height} are too large here: at most {_MOST_MEGAPIXELS} megapixels"
            raise RecordingError(f"{uploaded}: {told}")
