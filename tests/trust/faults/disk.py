"""A small disk that tests fill, take the right to write from, and give back; and commands that run on it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.trust.faults.disk_server import OWN

_REPOSITORY = Path(__file__).parents[3]
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    mb: float
    left: Sequence[str]  # processes of its that had to be killed

    @property
    def words(self) -> list[str]:
        """What it said on stderr, without bars of progress."""
        lines = self.stderr.replace("\r", "\n").splitlines()
        return [line.strip() for line in lines if line.strip() and "━" not in line]

    @property
    def error(self) -> str:
        """Its last word, which is one line of ours."""
        return self.words[-1].removeprefix("velora: ") if self.words else ""


class Commands:
    """Runs commands in forks of a process that has imported all that takes long; a context manager.

    `path` is a folder for what they write.
    """

    _before: Sequence[str] = ()  # what starts the process
    _after: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.path, self._words = folder / "disk", folder / "words"
        self.path.mkdir()
        self._numbers = itertools.count()
        self._server = subprocess.Popen(
            [*self._before, sys.executable, "-m", "tests.trust.faults.disk_server", str(self.path), *self._after],
            cwd=_REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY), "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self._server.communicate()

    @property
    def seen(self) -> Path:
        """Where this process sees that folder."""
        return self.path

    def clear(self) -> None:
        """Remove all that is in it."""
        for path in self.seen.iterdir():
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
                shutil.rmtree(path)
            else:
                path.unlink()

    def velora(self, *arguments: object, **more: Any) -> Ended:
        """A command, as from a shell."""
        line = [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments]
        return self.python(f"import sys\nfrom app.cli import main\nsys.exit(main({line!r}))", **more)

    def python(
        self, code: str, *, limit: int | None = None, kill_s: float | None = None, timeout_s: float = _TIMEOUT_S
    ) -> Ended:
        """Python in a process of its own. `limit` is the largest size of a file; after `kill_s` it is killed."""
        words = f"{self._words}{next(self._numbers)}"
        told = self._ask("run", code=code, out=words, limit=limit, kill_s=kill_s, timeout_s=timeout_s)
        texts = [Path(f"{words}.{kind}").read_text(errors="replace") for kind in ("out", "err")]
        return Ended(told["code"], *texts, told["seconds"], told["mb"], told["left"])

    def _ask(self, order: str, **more: Any) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None and self._server.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"do": order, **more}), file=self._server.stdin, flush=True)
        if not (answer := self._server.stdout.readline()):
            raise OSError(f"no disk: {self._server.stderr.read().strip()[-300:]}")
        return json.loads(answer)


class Disk(Commands):
    """They run on a disk of a few megabytes that nobody else has. Raises OSError where the system allows none."""

    #: without the right of root to write where nobody may
    _before = ("unshare", "-rm", "setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    _after = (OWN,)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            self.free()
        except OSError:
            self.close()
            raise

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self._server.pid}/root") / self.path.relative_to("/")

    def fill(self, room: int) -> None:
        """Leave so many bytes of room."""
        self._ask("fill", room=room)

    def free(self) -> int:
        """Let it have room again; how many bytes."""
        return int(self._ask("fill", room=None))

    def read_only(self, on: bool) -> None:
        """Let nothing be written any more, or again."""
        self._ask("read_only", on=on)

    def clear(self) -> None:
        self.read_only(False)
        super().clear()


def files(folder: Path) -> list[str]:
    """The files below a folder that are not hidden, by their names there, but for those that tell the time."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    shown = (path for path in found if not any(part.startswith(".") for part in path.parts))
    return sorted(path.as_posix() for path in shown if "tfevents" not in path.name)
