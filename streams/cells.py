"""Cells of CSV files that a spreadsheet must take for text: one that begins with = + - @ would be run as a formula.

Such a cell gets an apostrophe in front, which spreadsheets do not show; `plain` takes it off again.
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def safe(text: str) -> str:
    """A text as a cell that is never a formula."""
    return "'" + text if _FORMULA.match(text) else text


def plain(cell: str) -> str:
    """The text that `safe` made a cell of; any other cell as it is."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
