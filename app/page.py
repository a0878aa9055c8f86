"""The page's server: `serve` until interrupted, or a `Page` to hold while something else goes on.

    serve(lambda: load_recognizer("demo"), {"cards": Path("cards.aedat4")})

layout.py and page.html say what is on the page, routes.py brings it pictures, actions.py is what its controls do,
viewers.py keeps what each tab watches.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.access import Access, is_this_machine
from app.channel import Settings
from app.channels import Channels
from app.fast_import import import_gradio
from app.models import Models
from app.school import School
from app.uploads import Uploads
from app.viewers import MOST_VIEWERS, Viewers
from streams.files import reason

if TYPE_CHECKING:
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.routing import Route

    from velora import Recognizer

FIRST_PORT, LAST_PORT = 7860, 7959
_STOP_TIMEOUT_S = 1
_TRIES = 5  # ports that others take while the page starts
_PAINTERS = 4
_SESSIONS = 64  # of which Gradio keeps what each sent last; it makes a new one for whoever it has forgotten


def serve(
    load: Callable[[], Recognizer],
    recordings: Mapping[str, Path | str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    **options: Any,
) -> None:
    """Serve the page until interrupted (KeyboardInterrupt). `load` makes the recogniser, beside other work.

    `recordings`, or addresses of live sources, by name; the first one plays. `port` None is the first free one from
    7860; `options` are more of what `Page` takes. Raises ValueError for a port in use, and what `load` raises.
    """
    with Page(load, recordings, host=host, port=port, **options) as page:
        print(f"velora: the page is at {page.url} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        while not page.closed.wait(timeout=1.0):
            pass


def _load_other(name: str, words: Sequence[str] | None) -> Recognizer:
    from velora import load_recognizer

    return load_recognizer("zero-shot", labels=words, backbone=name) if words else load_recognizer(name)


class Page:
    """The running page: a context manager that stops the server and frees all viewers.

    `share` makes a link under which everybody finds it, through Gradio's servers, and needs users in `access`; `names`
    are those by which it is asked for through a proxy.
    `settings` say how sources are opened, `access` who may do what, `load_other` loads models that are chosen on the
    page, of which `models` says which there are. `school` keeps labels by hand and what is taught;
    `weights` tells those of a model's backbone where its checkpoint does not.
    """

    def __init__(
        self,
        load: Callable[[], Recognizer],
        recordings: Mapping[str, Path | str],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        share: bool = False,
        names: Sequence[str] = (),
        settings: Settings | None = None,
        access: Access | None = None,
        load_other: Callable[[str, Sequence[str] | None], Recognizer] = _load_other,
        models: Callable[[], Mapping[str, Path | str]] = dict,
        school: School | None = None,
        weights: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        if not recordings:
            raise ValueError("no recording to play: reinstall velora-rgbe, which brings some")
        free_port(host, port)  # tells before all else is there
        with _no_collection(), ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
            loading = pool.submit(_load, load)
            import_gradio()
            recognizer = loading.result()
        from app.actions import Actions
        from app.guard import guards
        from app.layout import build
        from app.routes import routes

        access = access or Access(open_to_others=share or not is_this_machine(host))
        if share and not access.users:
            raise ValueError(
                "--share opens the page to everybody who has its link: say who may see it, with --auth FILE"
            )
        self.closed = threading.Event()
        self.viewers = Viewers(recognizer, Channels(settings or Settings()))
        self.viewers.prepare(next(iter(recordings.values())))
        self.school, self.uploads = school or School(), Uploads()
        actions = self._actions = Actions(
            self.viewers, Models(recognizer, load_other, models, weights), recordings, access, self.school
        )
        self._pictures = ThreadPoolExecutor(_PAINTERS, thread_name_prefix="picture")
        self._setups = ThreadPoolExecutor(MOST_VIEWERS, thread_name_prefix="setup")
        self._slow = ThreadPoolExecutor(MOST_VIEWERS, thread_name_prefix="slow")
        try:
            self._demo = build(self.viewers, actions)
            served = routes(self.viewers, actions, self.uploads, self._pictures, self._setups, self._slow)
            self.url = self._serve(served, guards(host, access, names=names, shared=share), host, port, share)
        except BaseException:
            self.viewers.close()
            self.uploads.close()
            raise

    def _serve(
        self, served: Sequence[Route], guarded: list[Middleware], host: str, port: int | None, share: bool
    ) -> str:
        """The page's address, once it is served; on the next port where another program took a free one meanwhile."""
        for _ in range(_TRIES):
            free = free_port(host, port)
            try:
                return _launch(self._demo, self.viewers, served, guarded, host, free, share)
            except OSError as error:
                cause = error  # Gradio's own, where the port was taken, has no number
        what = reason(cause) if cause.errno else "other programs take each free port first"
        raise ValueError(f"cannot serve on {host}, port {free}: {what}; give another with --port") from cause

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, within about a second also with tabs open."""
        self.closed.set()
        self._actions.close()
        self.school.close()
        self.viewers.close()
        self._demo.server.config.timeout_graceful_shutdown = _STOP_TIMEOUT_S
        self._demo.close(verbose=False)
        self._demo.server.server_state.connections.clear()  # of those who came too late to be told
        self.viewers.close()  # of tabs that came meanwhile
        self.uploads.close()
        for threads in (self._pictures, self._setups, self._slow):
            threads.shutdown(wait=False, cancel_futures=True)
        gc.unfreeze()


def free_port(host: str, port: int | None) -> int:
    """`port`, or for None the first free one. Raises ValueError that says which port or address is not to be had."""
    for candidate in range(FIRST_PORT, LAST_PORT + 1) if port is None else [port]:
        try:
            _probe(host, candidate)
            return candidate
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ValueError(f"cannot serve on {host}, port {candidate}: {error.strerror or error}") from error
    if port is None:
        raise ValueError(f"ports {FIRST_PORT} to {LAST_PORT} of {host} are all in use: give a free one with --port")
    raise ValueError(f"port {port} of {host} is in use: give another with --port, or none for the first free one")


def _probe(host: str, port: int) -> None:
    if ":" in host:
        raise ValueError(f"cannot serve on {host}: give a name or an IPv4 address with --host")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # elsewhere it would allow a port in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Imports make a million objects that stay: looking for garbage among them costs a tenth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load(load: Callable[[], Recognizer]) -> Recognizer:
    """Load the recogniser, and leave a core to the pictures, the server and perhaps the browser."""
    recognizer = load()
    from app.model import leave_a_core

    leave_a_core()
    return recognizer


def _launch(
    demo: gr.Blocks,
    viewers: Viewers,
    served: Sequence[Route],
    guarded: list[Middleware],
    host: str,
    port: int,
    share: bool,
) -> str:
    """Start the server in a thread; returns the page's address. Raises ValueError where it cannot be shared."""
    from app.layout import STYLE, theme
    from app.routes import freeing_idle

    _past_proxy(host)
    _, url, link = demo.launch(
        server_name=host,
        server_port=port,
        app_kwargs={
            "routes": [*served],
            "lifespan": freeing_idle(viewers),
            "middleware": guarded,
        },
        theme=theme(),
        css=STYLE.read_text("utf-8"),
        ssr_mode=False,
        prevent_thread_lock=True,
        quiet=True,
        share=share,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        state_session_capacity=_SESSIONS,
    )
    if share and not link:
        demo.close(verbose=False)
        raise ValueError("no share link could be made: it needs a way to the internet, and Gradio's servers")
    return str(link or url)


def _past_proxy(host: str) -> None:
    """Starting, Gradio asks its own server whether it is there; a proxy that the environment names cannot know."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, "127.0.0.1", "localhost", host]))
