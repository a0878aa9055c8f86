"""What was found, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from app.bench import GROUPS
from app.bench.book import Book, Row
from app.console import Console


def show(machine: Mapping[str, Any], books: Mapping[str, Book]) -> None:
    """A table a group: medians, and the quartiles behind them."""
    console = Console()
    parts = (
        str(machine["cpu"]),
        f"{machine['cores']} cores",
        "AMX" if machine["amx"] else "bf16" if machine["bf16"] else "no bf16",
        f"GPU: {machine['gpu'] or 'none'}",
        f"torch {machine['torch']}, {machine['threads']} threads",
    )
    console.print(Text(" · ".join(parts)))
    for name, book in books.items():
        _group(console, name, book)


def _group(console: Console, name: str, book: Book) -> None:
    table = Table("", "median", "quartiles", title=Text(f"{name}: {GROUPS[name]}"), title_justify="left")
    for row in book.rows:
        if row.figures:
            table.add_section()
            table.add_row(Text(_what(row), style="bold"), "", "")
            for figure in row.figures:
                table.add_row(Text(figure), *map(Text, _shown(row, figure)))
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(f"{name}: {GROUPS[name]}", style="italic"))
    if book.reason:
        console.print(Text(f"  {book.status}: {book.reason}", style="red" if book.status == "failed" else "yellow"))
    for what, why in book.left_out.items():
        console.print(Text(f"  left out: {what} ({why})", style="yellow"))


def _what(row: Row) -> str:
    """What a row is of; random weights are announced."""
    told = [f"{value}" for key, value in row.what.items() if key != "random_weights" and isinstance(value, str)]
    told += [f"{key} {value:,}" for key, value in row.what.items() if not isinstance(value, str | bool)]
    return ", ".join([*told, *(["RANDOM WEIGHTS"] if row.what.get("random_weights") else [])])


def _shown(row: Row, figure: str) -> tuple[str, str]:
    low, high = row.spread.get(figure, (None, None))
    return _number(row.figures[figure]), "" if low is None or high is None else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
