"""`velora …` in a process of its own, for work that the program goes on beside: watched, and stopped at any time.

    child = Child(["train", "--json", …])
    for said in child.said(): ...              objects that it prints, a line each, to its end
    child.wait()                               its exit code; child.reason() why it failed
    child.stop()                               from any thread

It ends with the program that started it, however that ends: child_process.py sees to that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from streams.cores import usable_cores

_END_S = 30.0  # for a process that has said its last


class Child:
    """One command, started. Raises OSError where it cannot be."""

    def __init__(self, line: Sequence[str]) -> None:
        spare = max(1, usable_cores() - 1)  # a core is left to what goes on meanwhile
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (as long as this)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.child_process", *line],
            env={"OMP_NUM_THREADS": str(spare), **os.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def said(self) -> Iterator[dict[str, Any]]:
        """The objects that it prints, as they come; what else is printed is a library's word."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict):
                yield said

    def wait(self) -> int:
        """Its exit code; it is killed where it has closed its output and does not end."""
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait(_END_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def stop(self) -> None:
        """Let it end as by Ctrl-C, without waiting for it."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def reason(self) -> str:
        """Why it failed, in a line."""
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        own = [line.removeprefix("velora: ") for line in lines if line.startswith("velora: ")]
        if self._process.returncode == 1 and own:
            return own[-1]
        last = f": {lines[-1]}" if lines else ""
        return f"it ended by itself with code {self._process.returncode}{last[:200]}"
