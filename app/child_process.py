"""`velora …` in a process that ends with the one that started it: `python -P -m app.child_process train …`.

Its standard input is a pipe that nobody writes to. When it closes, since the other end was closed or its program is
gone, however that came, this process is interrupted as by Ctrl-C; if that does not end it, it kills itself and those
that it has started. It leads a session of its own, and takes what processor time is left over.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

_GRACE_S = 30.0  # it gets little time where others have much to do
_NICE = 5
_AUTOGROUP = Path("/proc/self/autogroup")  # Linux shares time among sessions first, and niceness counts within one


def main() -> int:
    """Run the command of the command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # that a script's background jobs ignore, and so theirs
    threading.Thread(target=_end_with_input, name="parent", daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
        with contextlib.suppress(OSError):
            if os.getsid(0) == os.getpid():
                _AUTOGROUP.write_text(str(_NICE), encoding="ascii")
    from app.cli import main as velora

    return velora()


def _end_with_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    _thread.interrupt_main(signal.SIGINT)
    time.sleep(_GRACE_S)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
