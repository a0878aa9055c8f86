"""The ledger: a case beyond a bound failed, and a table takes its place on the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust.ledger import Ledger


def test_a_case_beyond_a_bound_failed() -> None:
    row = Ledger().row("files", "replay", most_s=5, most_mb=500)
    with pytest.raises(AssertionError, match="nothing was tried"):
        row.check()
    row.add("good", seconds=1, mb=100)
    row.check()
    row.add("slow", seconds=6, mb=100)
    row.add("large", seconds=1, mb=600)
    row.add("wrong", seconds=1, failure="a traceback")
    with pytest.raises(AssertionError, match="3 of 4:\nslow: took 6.0 s\nlarge: took 600 MB\nwrong: a traceback"):
        row.check()
    assert row.cells()[2:7] == ("4", "3", "6 s", "600 MB", "5 s, 500 MB")


def test_a_busy_machine_may_take_longer_and_no_more_memory() -> None:
    row = Ledger(slack=8).row("files", "replay", most_s=5, most_mb=500)
    row.add("slow", seconds=39, mb=400)
    row.check()
    row.add("slower", seconds=41, mb=600)
    with pytest.raises(AssertionError, match="2 of 2:\nslower: took 41.0 s\nslower: took 600 MB"):
        row.check()
    assert row.bounds == "5 s, 500 MB"


def test_what_a_case_raises_is_its_failure() -> None:
    row = Ledger().row("files", "replay")
    with pytest.raises(ZeroDivisionError), row.case("division"):
        raise ZeroDivisionError
    assert row.failures == ["division: ZeroDivisionError()"] and row.worst_mb > 1


def test_a_table_takes_its_place_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- fuzz -->\nold\n<!-- end of fuzz -->\nrest\n")
    ledger = Ledger()
    ledger.row("a | b", "replay").add("one", seconds=0.5)
    ledger.write("fuzz", page)
    text = page.read_text()
    assert text.startswith("# Page\n<!-- fuzz -->\n\n") and text.endswith("\n<!-- end of fuzz -->\nrest\n")
    assert text.count("| a / b | replay | 1 | 0 | 0.5 s |") == 1 and "old" not in text
    with pytest.raises(ValueError, match="soak"):
        ledger.write("soak", page)


def test_what_is_tried_again_takes_the_place_of_its_row_and_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- fuzz -->\n<!-- end of fuzz -->\n")
    for tries in ([("a", "replay", 1.0), ("a", "info", 2.0), ("b", "replay", 3.0)], [("a", "info", 4.0)]):
        ledger = Ledger()
        for what, tried_with, seconds in tries:
            ledger.row(what, tried_with).add("one", seconds=seconds)
        ledger.write("fuzz", page)
    rows = [line.split(" | ")[:5] for line in page.read_text().splitlines() if line.startswith("| ")]
    assert [row[-1] for row in rows] == ["worst time", "---", "1 s", "4 s", "3 s"]
