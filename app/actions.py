"""What the controls of the page do, a method each: the page calls them, and so do programs (gradio_client).

Each takes the token of a tab, and returns a line where there is something to say, else nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, validate_call

from app.access import Access
from app.batch import Batch
from app.channel import one_line
from app.doctor_cameras import camera_addresses
from app.folder_actions import FolderActions
from app.folders import Folders
from app.models import Models
from app.school import School
from app.spans import SpanBook
from app.viewers import Tab, Viewers
from streams import Player, StreamError
from velora.config import MAX_STRIDE, check_labels

if TYPE_CHECKING:
    from velora import Recognizer

_SLOWEST, _FASTEST = 0.05, 20.0
_GUESTS_STRIDE = 100  # a window keeps all samples that it reaches over
_MOST_WORDS = 200
#: What takes seconds, or waits for a disk or a device: of guests one at a time in a tab.
SLOW = frozenset(
    {"use_model", "words", "open", "record", "cameras", "mark", "erase", "undo", "example", "clip", "forget", "teach"}
    | {"label_folder", "export_folder", "review"}
)
#: What needs the operator's role.
OPERATORS_ONLY = frozenset(
    {"record", "open", "cameras", "mark", "erase", "undo", "example", "clip", "forget", "teach", "stop_teaching"}
    | {"label_folder", "stop_folder", "export_folder", "review"}
)


class Gone(LookupError):
    """There is no such tab (any more)."""


class Actions(FolderActions):
    """The controls. `offers` are recordings and live sources by name; whoever may, adds to them."""

    def __init__(
        self, viewers: Viewers, models: Models, offers: Mapping[str, Path | str], access: Access, school: School
    ) -> None:
        self._viewers, self._models, self._offers, self._access = viewers, models, dict(offers), access
        self._school, self._batch, self._folders = school, Batch(), Folders(access.folders)
        self._found: list[str] = []  # cameras

    def act(self, name: str, headers: Mapping[str, str], token: str, /, **arguments: Any) -> str:
        """Do what a control is for; its line, which is also told on the page. Raises Gone, and ValueError for what
        cannot be done."""
        if name not in self.names():
            raise ValueError(f"there is no action {name[:40]!r}")
        if name in OPERATORS_ONLY and not self._access.operates(headers):
            raise ValueError("that is for operators of this page: sign in as one")
        tab = self._tab(token)
        viewer = tab.viewer
        in_turn = name in SLOW and not tab.operator
        if in_turn and not tab.turn.acquire(blocking=False):
            raise ValueError("one thing after the other: what was asked for before is not done yet")
        try:
            line: str = validate_call(getattr(self, name))(token, **arguments)
        except ValidationError as error:
            raise ValueError(f"{name}: {error.errors()[0]['msg']}") from None
        except Gone:
            raise
        except Exception as error:
            line = one_line(error, viewer.address)
            viewer.say(line)
            raise ValueError(line) from None
        finally:
            if in_turn:
                tab.turn.release()
        viewer = self._tab(token).viewer  # another one, where the source was changed
        viewer.setup.forget()
        if line:
            viewer.say(line, done=True)
        return line

    @classmethod
    def names(cls) -> dict[str, Callable[..., str]]:
        """All controls by name."""
        own = inspect.getmembers(cls, inspect.isfunction)
        return {name: method for name, method in own if not name.startswith("_") and _is_control(method)}

    def offers(self, *, operator: bool) -> list[str]:
        """What can be chosen to watch; by operators also the cameras that were found."""
        found = self._found if operator else []
        return [*self._offers, *(address for address in found if address not in self._offers)]

    def called(self, address: Path | str) -> str:
        """What a source is called here."""
        own = (name for name, offered in self._offers.items() if offered == address)
        return next(own, address.name if isinstance(address, Path) else address)

    def models(self) -> list[str]:
        """What can be chosen to recognise by."""
        return self._models.names()

    def allows(self, headers: Mapping[str, str]) -> dict[str, bool]:
        """What the sender of these headers may do."""
        operates = self._access.operates(headers)
        return {
            "operates": operates,
            "opens": operates and bool(self._access.folders or self._access.uris),
        }

    def enter(self, session: str, headers: Mapping[str, str]) -> str:
        """A tab was opened: its token."""
        first = next(iter(self._offers.values()))
        user = self._access.user(headers)
        name = user.name if user is not None else ""
        return self._viewers.open(session, first, operator=self._access.operates(headers), user=name)

    def state(self, token: str) -> dict[str, Any]:
        """What the page tells beside its picture."""
        return self._tab(token).viewer.state()

    # --- playing ------------------------------------------------------------------------------------------------------

    def play(self, token: str) -> str:
        """Go on."""
        self._tab(token).viewer.resume()
        return ""

    def pause(self, token: str) -> str:
        """Hold the picture."""
        self._tab(token).viewer.pause()
        return ""

    def toggle(self, token: str) -> str:
        """Play or pause."""
        viewer = self._tab(token).viewer
        if viewer.channel.failure:  # perhaps it can be opened now
            self._viewers.again(token)
            return ""
        return self.pause(token) if viewer.playing else self.play(token)

    def restart(self, token: str) -> str:
        """Play from the start."""
        self._player(token).restart()
        return ""

    def step(self, token: str, count: int = 1) -> str:
        """Pause, and go on by so many samples, or back where that is negative."""
        if not 0 < abs(count) <= 1000:
            raise ValueError("steps are 1 to 1000 samples, forward or back")
        self._player(token).step(count)
        return ""

    def seek(self, token: str, seconds: float) -> str:
        """Go on from so many seconds after the beginning."""
        player = self._player(token)
        if player.span_us is None:
            raise ValueError("this recording cannot be sought in: its length is not known")
        start, end = player.span_us
        player.seek(start + round(min(max(seconds, 0.0), (end - start) / 1e6) * 1e6) - 1)
        return ""

    def speed(self, token: str, times: float = 1.0) -> str:
        """Play so many times as fast as it was recorded."""
        if not _SLOWEST <= times <= _FASTEST:
            raise ValueError(f"the speed is {_SLOWEST:g} to {_FASTEST:g} times that of the recording")
        self._player(token).speed = times
        return ""

    def loop(self, token: str, on: bool = True) -> str:
        """Begin again at the end, or stay there."""
        self._player(token).loop = on
        return ""

    # --- what is watched ----------------------------------------------------------------------------------------------

    def choose(self, token: str, name: str) -> str:
        """Watch one of the sources that the page offers."""
        if name not in self.offers(operator=self._tab(token).operator):
            raise ValueError(f"{name[:80]!r} is not offered here")
        self._viewers.play(token, self._offers.get(name, name))
        return ""

    def open(self, token: str, address: str) -> str:
        """Watch a recording below a folder that is allowed, or the feed at an address, where those are."""
        place = self._access.place(address.strip())
        self._tab(token)
        self._viewers.play(token, place)
        return ""

    def cameras(self, token: str) -> str:
        """Look for cameras, which are then offered."""
        self._tab(token)
        self._found = camera_addresses()
        return f"found {', '.join(self._found)}" if self._found else "no camera found: `velora doctor` tells more"

    def record(self, token: str) -> str:
        """Record what is live, or end that."""
        viewer = self._tab(token).viewer
        if (label := self._school.recording_on(viewer.channel)) is not None:
            raise ValueError(f"an example of {label} is being recorded: end it first")
        return viewer.record()

    # --- how it is recognised -----------------------------------------------------------------------------------------

    def use_model(self, token: str, name: str) -> str:
        """Recognise by another model, from now on."""
        self._tab(token).viewer.decide()
        self._use(token, self._models.get(name))
        return ""

    def words(self, token: str, labels: str) -> str:
        """Let CLIP tell these words apart, which commas separate, without training."""
        channel = self._tab(token).viewer.decide()
        words = check_labels([word.strip() for word in labels.split(",") if word.strip()])
        if not 2 <= len(words) <= _MOST_WORDS:
            raise ValueError(f"give 2 to {_MOST_WORDS} words, with commas between them")
        self._use(token, self._models.of_words(words, channel.recognizer.config.backbone))
        return ""

    def stride(self, token: str, samples: int = 0) -> str:
        """Samples from one of a window to the next; 0: as the model was trained."""
        tab = self._tab(token)
        most = MAX_STRIDE if tab.operator else _GUESTS_STRIDE
        if not 0 <= samples <= most:
            raise ValueError(f"the stride is 1 to {most} samples, or 0: as the model was trained")
        tab.viewer.decide().set_stride(samples or None)
        return ""

    def denoise(self, token: str, on: bool = True) -> str:
        """Take background activity and hot pixels out of the events."""
        self._tab(token).viewer.decide().denoise = on
        return ""

    # --- labels by hand, and teaching ---------------------------------------------------------------------------------

    def mark(self, token: str, start_us: int, end_us: int, label: str) -> str:
        """Say what a span of the recording shows, in microseconds of its clock; what it overlaps is replaced."""
        self._book(token).mark(start_us, end_us, label)
        return ""

    def erase(self, token: str, start_us: int, end_us: int) -> str:
        """Take the labels by hand out of a span."""
        self._book(token).erase(start_us, end_us)
        return ""

    def undo(self, token: str) -> str:
        """Take back the last change of labels."""
        return "" if self._book(token).undo() else "there is nothing to take back"

    def example(self, token: str, start_us: int, end_us: int, label: str) -> str:
        """Take a span of the recording as an example of a label that a model is to learn."""
        self._school.add(self._tab(token).viewer.channel, start_us, end_us, label)
        return self._school.told(label)

    def clip(self, token: str, label: str = "") -> str:
        """Begin to record an example of what is live, or end that."""
        return self._school.clip(self._tab(token).viewer.decide(), label)

    def forget(self, token: str, label: str) -> str:
        """Forget the examples of a label."""
        self._tab(token)
        self._school.forget(label)
        return ""

    def teach(self, token: str, name: str) -> str:
        """Teach the model in use the labels of the examples, as a new model of this name, which is then used here."""
        base, name = self._tab(token).viewer.channel.recognizer.name, name.strip()
        if name in self._models.names():
            raise ValueError(f"there is a model {name!r} already: choose another name")
        weights = self._models.weights_of(base)
        self._school.teach(self._models.place(base), name, weights, lambda new: self._taught(token, new))
        return ""

    def stop_teaching(self, token: str) -> str:
        """Stop it; nothing of it is kept."""
        self._tab(token)
        self._school.stop()
        return ""

    def taught(self, token: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """What the page shows of all this: labels by hand of the recording, examples, and what may be wrong."""
        operates = self._access.operates(headers)
        found: dict[str, Any] = {"spans": [], "spans_in": None, "can_undo": False, "examples": {}}
        try:
            found["examples"] = self._school.counts() if operates else {}
            book = self._book(token)
            found["spans"] = [(span.start_us, span.end_us, span.label) for span in book.spans]
            found["can_undo"] = book.can_undo
            found["spans_in"] = str(book.path) if operates else None
        except (ValueError, OSError, StreamError) as error:
            own = one_line(error, self._tab(token).viewer.address)
            found["no_spans"] = own if operates else "labels by hand cannot be read here"
        return found

    def label_file(self, token: str) -> Path:
        """The labels by hand of what a tab watches. Raises Gone, and ValueError where there are none."""
        book = self._book(token)
        if not book.spans:
            raise ValueError("nothing was labelled by hand yet")
        return book.path

    def teaching(self) -> dict[str, Any] | None:
        """How it goes."""
        return self._school.state()

    def recording_example(self) -> str | None:
        """The label of which an example is being recorded."""
        return self._school.recording

    def _use(self, token: str, recognizer: Recognizer) -> None:
        """Loading took a while: what the tab watches may be another source now."""
        tab = self._tab(token)
        tab.viewer.decide().use(recognizer)
        tab.recognizer = recognizer
        tab.viewer.setup.forget()

    def _book(self, token: str) -> SpanBook:
        tab = self._tab(token)
        if tab.book is None:
            tab.book = self._school.book(tab.viewer.channel, tab.upload is not None)
        if not self._access.keeps(tab.book.path):
            raise ValueError(f"{tab.book.path} is a link to elsewhere: put the label file itself there")
        return tab.book

    def _taught(self, token: str, name: str) -> None:
        """A model has learned: who asked for it goes on with it."""
        tab = self._viewers.find(token)
        if tab is None:
            return
        try:
            self.use_model(token, name)
            tab.viewer.say(f"{name} has learned, and is in use", done=True)
        except Exception as error:
            tab.viewer.say(one_line(error, tab.viewer.address))

    # ------------------------------------------------------------------------------------------------------------------

    def _tab(self, token: str) -> Tab:
        tab = self._viewers.find(token)
        if tab is None:
            raise Gone("this tab is not known (any more): load the page again")
        return tab

    def _player(self, token: str) -> Player:
        player = self._tab(token).viewer.channel.player
        if player is None:
            raise ValueError("what is live can only be watched as it happens: record it first")
        self._tab(token).viewer.say("")
        return player


def _is_control(method: Callable[..., Any]) -> bool:
    signature = inspect.signature(method)
    return list(signature.parameters)[1:2] == ["token"] and signature.return_annotation in (str, "str")
