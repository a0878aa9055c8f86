"""A process that runs commands, on a small disk of its own: `python -m tests.trust.faults.disk_server DISK own`.

It reads an object a line from its input, and answers with one; see `tests.trust.faults.disk`. Each command runs in a
fork, which has imported all that takes long already.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

MEGABYTES = 48
BALLAST = ".ballast"
OWN = "own"  # after DISK: it is to be a disk of its own


def main() -> None:
    """Serve until the input ends."""
    disk = Path(sys.argv[1])
    if sys.argv[2:] == [OWN]:
        _mount("-t", "tmpfs", "-o", f"size={MEGABYTES}m", "velora", str(disk))
    _import()
    orders = {"fill": _fill, "read_only": _read_only, "run": _run}
    for line in sys.stdin:
        asked = json.loads(line)
        answer = orders[asked.pop("do")](disk, **asked)
        print(json.dumps(answer), flush=True)


def _import() -> None:
    import app.cli  # noqa: F401
    import app.export.command  # noqa: F401
    import app.label  # noqa: F401
    import app.record  # noqa: F401
    import app.train  # noqa: F401


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True)


def _fill(disk: Path, *, room: int | None) -> int:
    """Leave so many bytes of room; None: all of it. How many there were before."""
    (disk / BALLAST).unlink(missing_ok=True)
    state = os.statvfs(disk)
    free = state.f_bavail * state.f_frsize
    if room is not None:
        with open(disk / BALLAST, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - room))
    return free


def _read_only(disk: Path, *, on: bool) -> None:
    _mount("-o", f"remount,{'ro' if on else 'rw'}", str(disk))


def _run(disk: Path, *, code: str, out: str, limit: int | None, kill_s: float | None, timeout_s: float) -> Any:
    """Run Python in a fork, whose exit code it is; its words go to files beginning with `out`."""
    began = time.perf_counter()
    child = os.fork()
    if not child:
        _be_the_child(code, out, limit)
    ended = threading.Event()
    killer = threading.Thread(target=_kill_later, args=(child, kill_s if kill_s is not None else timeout_s, ended))
    killer.start()
    _, status, used = os.wait4(child, 0)
    ended.set()
    killer.join()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.perf_counter() - began,
        "mb": used.ru_maxrss / 1e3,
        "left": _end_session(child),
    }


def _be_the_child(code: str, out: str, limit: int | None) -> None:
    exit_code = 70
    try:
        os.setsid()
        for number, name in ((0, os.devnull), (1, f"{out}.out"), (2, f"{out}.err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if limit is not None:  # larger files are refused, as by a quota
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = ["velora"]
        try:
            exec(compile(code, "case", "exec"), {"__name__": "case"})
            exit_code = 0
        except SystemExit as end:
            exit_code = int(end.code or 0)
        _finish()
    except BaseException:
        traceback.print_exc()
    os._exit(exit_code)


def _finish() -> None:
    """What an interpreter does at its end that may fail, or wait."""
    from concurrent.futures import process

    process._python_exit()
    sys.stdout.flush()
    sys.stderr.flush()


def _kill_later(process: int, seconds: float, ended: threading.Event) -> None:
    if not ended.wait(seconds):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _end_session(session: int, grace_s: float = 15.0) -> list[str]:
    """The processes of a session that do not end by themselves when it has ended, killed."""
    import psutil

    own = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session:
                own.append(process)
    _, left = psutil.wait_procs(own, timeout=grace_s)
    told = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            told.append(" ".join(process.cmdline())[-200:])
            process.kill()
    psutil.wait_procs(left, timeout=5)
    return told


if __name__ == "__main__":
    main()
