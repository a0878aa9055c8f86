"""What is on the page, and the named endpoints that programs call. Importing this module imports Gradio: seconds."""

from __future__ import annotations

import inspect
import secrets
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api

from app.actions import Actions, Gone
from app.palette import FILTERS
from app.viewers import Viewers

_HERE = Path(__file__).parent
STYLE = _HERE / "page.css"
_SCRIPTS = (
    "page.js",
    "page_panes.js",
    "page_timeline.js",
    "page_labels.js",
    "page_folder.js",
    "page_controls.js",
    "page_again.js",
    "page_pull.js",
)


def theme() -> gr.themes.Base:
    """Plain, with the system's own fonts: nothing is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500")  # a contrast of 4.5 or more on white, as WCAG AA asks


class _Controls(gr.Blocks):
    """Blocks whose functions take texts, numbers and switches alone: in other input Gradio fetches what it names."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        if any(isinstance(value, dict | list) for value in inputs):
            raise gr.Error("arguments are texts, numbers and switches", print_exception=False)
        found: list[Any] = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        return found


def build(viewers: Viewers, actions: Actions) -> gr.Blocks:
    """The page, not yet served. The first of the recordings plays in a new tab."""
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    script = "\n".join((_HERE / name).read_text("utf-8") for name in _SCRIPTS)
    template = (_HERE / "page.html").read_text("utf-8").replace("<!--filters-->", FILTERS)
    demo = _Controls(title="VELoRA", fill_width=True, analytics_enabled=False)
    with demo:
        # Its value is the tab's token.
        view = gr.HTML("", html_template=template, js_on_load=script, elem_id="view")

        def enter(request: gr.Request) -> str:
            return _told(lambda: actions.enter(str(request.session_hash), dict(request.headers)))

        def leave(request: gr.Request) -> None:
            viewers.leave(str(request.session_hash))

        demo.load(enter, outputs=view, **quick)
        demo.unload(leave)
        _offer(actions)
    return demo


def _offer(actions: Actions) -> None:
    """An endpoint for each action, with its types."""

    def open_tab(request: gr.Request) -> str:
        """Begin to watch; returns the token that all others take. It is freed when unused for a minute."""
        return _told(
            lambda: actions.enter(f"program {request.session_hash or secrets.token_hex()}", dict(request.headers))
        )

    def state(token: str) -> dict[str, Any]:
        """Labels, rates and latencies now."""
        return _told(lambda: actions.state(token))

    plain: dict[str, Any] = {"queue": False}
    api(open_tab, api_name="open_tab", **plain)
    api(state, api_name="state", **plain)
    for name, method in Actions.names().items():
        api(_endpoint(actions, name, method), api_name=name, **plain)


def _endpoint(actions: Actions, name: str, method: Callable[..., str]) -> Callable[..., str]:
    """A function with the method's parameters, which Gradio also gives its request."""
    parameters = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    names = [p.name for p in parameters]

    def endpoint(*given: Any) -> str:
        *values, request = given
        arguments = dict(zip(names, values, strict=False))
        token = arguments.pop("token")
        return _told(lambda: actions.act(name, dict(request.headers), token, **arguments))

    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None)
    endpoint.__signature__ = inspect.Signature([*parameters, request], return_annotation=str)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {**typing.get_type_hints(method), "request": gr.Request}
    endpoint.__doc__ = method.__doc__
    return endpoint


Found = typing.TypeVar("Found")


def _told(do: Callable[[], Found]) -> Found:
    """Errors as Gradio tells them to programs."""
    try:
        return do()
    except (ValueError, Gone) as error:
        raise gr.Error(str(error), print_exception=False) from None
