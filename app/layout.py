"""What is on the page, and what its controls do. Importing this module imports Gradio, which takes seconds."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.viewer import Viewer, one_line
from app.viewers import Viewers

if TYPE_CHECKING:
    from velora import Recognizer

STYLE = Path(__file__).with_name("page.css")
_SCRIPT = Path(__file__).with_name("page.js")

# page.js fills it, and writes Play or Pause on the button; the controls stand at @children.
_VIEW = """
<div class="panes titles"><b id="rgb">RGB</b><i></i><b id="events">Events</b><i></i><b>Motion</b></div>
<div id="stage"><img id="strip" alt="RGB, events and motion">
<div class="panes"><b></b><i></i><b></b><i></i><b></b></div></div>
@children
<div id="message" role="status"></div>
<div id="result"><div id="label"><b></b><span></span></div><ol id="bars"></ol></div>
<dl id="status"></dl>
"""


def theme() -> gr.themes.Base:
    """Plain, with the system's own fonts: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def build(viewers: Viewers, recognizer: Recognizer, recordings: Mapping[str, Path | str]) -> gr.Blocks:
    """The page, not yet served. The first of the recordings plays in a new tab."""
    actions, names = Actions(viewers, recordings), list(recordings)
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    demo = gr.Blocks(title="VELoRA", fill_width=True, analytics_enabled=False)
    with demo:
        gr.HTML(_header(recognizer), elem_id="header")
        # Its value is the tab's token.
        view = gr.HTML("", html_template=_VIEW, js_on_load=_SCRIPT.read_text("utf-8"), elem_id="view")
        with view, gr.Row(elem_id="controls"):
            play = gr.Button("Pause", elem_id="play", variant="primary", size="md")
            restart = gr.Button("Restart", elem_id="restart", size="md")
            record = gr.Button("Record", elem_id="record", size="md")
            choice = gr.Dropdown(names, value=names[0], show_label=False, container=False, elem_id="choice")
            upload = gr.UploadButton("Open a recording…", file_types=[".aedat4", ".aedat"], elem_id="upload", size="md")
        demo.load(actions.enter, outputs=[view, choice], **quick)
        demo.unload(actions.leave)
        play.click(actions.toggle, view, **quick)
        restart.click(actions.restart, view, **quick)
        record.click(actions.record, view, **quick)
        choice.input(actions.choose, [view, choice], **quick)
        upload.upload(actions.open_upload, [view, upload], choice, **quick)
    return demo


class Actions:
    """What the controls do; each gets the token of its tab. Their effect comes back with the next picture's state."""

    def __init__(self, viewers: Viewers, recordings: Mapping[str, Path | str]) -> None:
        self._viewers, self._recordings = viewers, recordings

    def enter(self, request: gr.Request) -> tuple[str, str]:
        """A tab was opened: its token, and the name of the recording that plays."""
        name, recording = next(iter(self._recordings.items()))
        try:
            return self._viewers.open(str(request.session_hash), recording), name
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def leave(self, request: gr.Request) -> None:
        """A tab was closed."""
        self._viewers.leave(str(request.session_hash))

    def toggle(self, token: str) -> None:
        """Play or pause."""
        self._act(token, lambda viewer: viewer.pause() if viewer.playing else viewer.resume())

    def restart(self, token: str) -> None:
        """Play from the start."""
        self._act(token, Viewer.restart)

    def record(self, token: str) -> None:
        """Record what is live, or end that."""
        self._act(token, Viewer.record)

    def choose(self, token: str, name: str) -> None:
        """Play one of the recordings that the page offers."""
        self._viewers.play(token, self._recordings[name])

    def open_upload(self, token: str, file: str) -> Any:
        """Play a recording from the viewer's machine, or say in one line why not, and go on: the choice that stands."""
        try:
            self._viewers.play_upload(token, Path(file))
        except Exception as error:
            message = one_line(error, Path(file))
            self._act(token, lambda viewer: viewer.say(message))
            return gr.skip()
        return None

    def _act(self, token: str, do: Callable[[Viewer], None]) -> None:
        viewer = self._viewers.get(token)
        if viewer is not None:  # else the page finds out with its next pull, and reloads
            do(viewer)


def _header(recognizer: Recognizer) -> str:
    from app.model import random_note

    where = f"{recognizer.name} · {recognizer.device} · {str(recognizer.dtype).removeprefix('torch.')}"
    note = random_note(recognizer)
    banner = f'<p id="random" role="alert">{html.escape(note)}</p>' if note else ""
    return (
        '<div class="line"><h1>VELoRA</h1><span>what an RGB + event camera sees</span>'
        f'<span class="model">{html.escape(where)}</span></div>{banner}'
    )
