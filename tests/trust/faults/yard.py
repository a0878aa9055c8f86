"""A page that may open one folder, and what lies beside that folder, which nobody may touch."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.access import Access
from app.page import Page
from app.school import School
from tests.app.fakes import FakeRecognizer

SECRET = "the secret of the owner"


@dataclass
class Yard:
    """A page that may open what is `inside`, and what lies outside of that, which nobody may touch."""

    page: Page
    inside: Path
    outside: Path
    listener: socket.socket  # that nobody may call

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def state(self) -> dict[str, bytes]:
        """Of all that is outside."""
        files = [path for path in self.outside.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    def called(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except TimeoutError:
            return False
        return True


@pytest.fixture
def yard(small_recording: Path, tmp_path: Path) -> Iterator[Yard]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        (folder / "deep").mkdir(parents=True)
        shutil.copy(small_recording, folder / "a.aedat4")
        shutil.copy(small_recording, folder / "deep" / "b.aedat4")
    (outside / "secret.txt").write_text(SECRET)
    (outside / "labels.csv").write_text(f"recording,start_us,end_us,label\na.aedat4,1010000,1200000,{SECRET}\n")
    (inside / "out").symlink_to(outside)
    (inside / "out.aedat4").symlink_to(outside / "a.aedat4")
    (inside / "velora-labels").symlink_to(outside)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        access = Access(folders=(inside.resolve(),))
        school = School(tmp_path / "school")
        options: dict[str, Any] = {"access": access, "school": school, "models": lambda: {"fake": "demo"}}
        with Page(FakeRecognizer, {"square": small_recording}, **options) as page:  # type: ignore[arg-type]
            yield Yard(page, inside, outside, listener)
