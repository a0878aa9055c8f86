"""The page as strangers meet it: tabs over plain HTTP, what the program holds, and what was tried on it."""

from __future__ import annotations

import gc
import json
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.page import Page
from tests.trust.ledger import Row

PATIENCE_S = 60.0  # far more than anything here takes, also on a busy machine
Auth = tuple[str, str] | None
_POOLS = ("setup", "slow", "asyncio_", "AnyIO worker thread", "picture_", "ThreadPoolExecutor-")


@contextmanager
def attempt(row: Row, name: str) -> Iterator[None]:
    """A case, in this process; an assertion that does not hold is noted, and the next case goes on."""
    began, failure = time.perf_counter(), ""
    try:
        yield
    except (AssertionError, httpx.HTTPError, OSError) as error:
        failure = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
    row.add(name, seconds=time.perf_counter() - began, failure=failure)


class HttpTab:
    """A tab as a browser has it: it loads, keeps Gradio's heartbeat open, and is closed by hanging up."""

    def __init__(self, page: Page, auth: Auth = None) -> None:
        self.page, self.session = page, secrets.token_hex(8)
        # the server closes what is idle for 5 s, as the client does by default: one of them may come too late
        limits = httpx.Limits(keepalive_expiry=2.0)
        self.http = httpx.Client(base_url=page.url, auth=auth, timeout=PATIENCE_S, limits=limits)
        asked = {"data": [], "fn_index": 0, "session_hash": self.session}
        reply = self.http.post("gradio_api/run/predict", json=asked)
        self.token: str = reply.json()["data"][0] if reply.status_code == 200 else ""
        self._heart = hanging(page, f"GET /gradio_api/heartbeat/{self.session} HTTP/1.1")
        self._heart.recv(1)  # it beats

    def look(self, after: int = 0) -> dict[str, Any]:
        """The state, with the number of its picture where there is a new one."""
        reply = self.http.get(f"frames/{self.token}", params={"after": after})
        assert reply.status_code == 200, reply.status_code
        return dict(json.loads(reply.content.partition(b"\n")[0]))

    def sees(self, pictures: int = 1) -> None:
        """Wait for so many pictures."""
        number, end = 0, time.monotonic() + PATIENCE_S
        while pictures and time.monotonic() < end:
            news = self.look(number).get("number", number)
            pictures, number = pictures - (news > number), news
        assert not pictures, "no picture came"

    def act(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Use a control: what it answers."""
        return dict(self.http.post(f"act/{self.token}/{name}", json=arguments).json())

    def close(self) -> None:
        """As a browser does when its tab is closed."""
        self._heart.close()
        self.http.close()


def address_of(page: Page) -> tuple[str, int]:
    """Of its server."""
    url = httpx.URL(page.url)
    return url.host, url.port or 80


def hanging(page: Page, line: str, *more: str, body: bytes = b"") -> socket.socket:
    """A connection that has sent a request, and perhaps a part of its body."""
    host, port = address_of(page)
    link = socket.create_connection((host, port), PATIENCE_S)
    head = "\r\n".join([line, f"Host: {host}:{port}", *more, "", ""])
    link.sendall(head.encode("latin-1") + body)
    return link


def answer(link: socket.socket) -> bytes:
    """All that comes before the other side hangs up."""
    parts = []
    with suppress(ConnectionResetError):
        while part := link.recv(65536):
            parts.append(part)
    return b"".join(parts)


@dataclass(frozen=True)
class Held:
    """What the program holds: threads, handles, processes, files in the folder for temporary ones, and memory."""

    threads: int
    workers: int  # threads of pools of bounded size, which come as they are needed
    handles: int
    children: int
    files: int
    mb: float
    opened: tuple[str, ...]  # what the handles are of, without numbers

    def beyond(self, before: Held, *, workers: bool = False) -> str:
        """What has grown, in words."""
        names = ["threads", "handles", "children", "files", *(["workers"] if workers else [])]
        grown = {name: (getattr(before, name), getattr(self, name)) for name in names}
        told = ", ".join(f"{name} {a} to {b}" for name, (a, b) in grown.items() if b > a)
        more = Counter(self.opened) - Counter(before.opened)
        return f"{told} ({', '.join(more)})" if told and more else told


def held() -> Held:
    """Now."""
    gc.collect()
    process = psutil.Process()
    pooled = [thread.name.startswith(_POOLS) for thread in threading.enumerate()]
    return Held(
        threads=pooled.count(False),
        workers=pooled.count(True),
        handles=process.num_fds(),
        children=len(process.children(recursive=True)),
        files=sum(len(files) + len(folders) for own in _temporary() for _, folders, files in os.walk(own)),
        mb=process.memory_info().rss / 1e6,
        opened=tuple(_opened()),
    )


def _opened() -> Iterator[str]:
    """What is open, in the words of the system."""
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            yield re.sub(r"\d+", "N", str(handle.readlink()))


def settled(before: Held, *, workers: bool = False) -> Held:
    """What is held once nothing is more than before, or after a minute in which that did not come about."""
    end = time.monotonic() + PATIENCE_S
    while (now := held()).beyond(before, workers=workers) and time.monotonic() < end:
        time.sleep(0.1)
    return now


def _temporary() -> list[Path]:
    """Folders that the program makes among the system's temporary ones."""
    with suppress(OSError):
        return [path for path in Path(tempfile.gettempdir()).glob("velora-*") if path.is_dir()]
    return []
