"""Where tables are printed."""

from __future__ import annotations

import threading

import rich.console


class Console(rich.console.Console):
    """Of standard output, that may be closed before all is said: rich would end the program with an error then."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, which ends the program well; a thread that draws ends alone, without a word."""
        if threading.current_thread() is not threading.main_thread():
            raise SystemExit
        raise BrokenPipeError
