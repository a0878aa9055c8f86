"""The label format: what is wrong with a line is said in the words of the format, and briefly."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from app.label_file import LabelRow, read_label_rows

HEAD = "recording,start_us,end_us,label,confidence\n"


def test_cells_that_may_be_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f'{HEAD}a,-5,10,"walk, fast"\na,10,20,sit,\na,20,30,sit,0.5\n')
    assert read_label_rows(tmp_path / "labels.csv") == [
        LabelRow("a", -5, 10, "walk, fast", None, 2),
        LabelRow("a", 10, 20, "sit", None, 3),
        LabelRow("a", 20, 30, "sit", 0.5, 4),
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a,1", "it has too few cells"),
        ("a,1,2,walk,0.5,x", "it has too many cells: a label with a comma stands in quotes"),
        ("a,soon,2,walk", "start_us is a whole number of microseconds, not 'soon'"),
        ("a,1,1.5,walk", "end_us is a whole number of microseconds, not '1.5'"),
        (f"a,1,{1 << 62},walk", f"end_us is a whole number of microseconds, not '{1 << 62}'"),
        (f"a,1,{5000 * '9'},walk", f"end_us is a whole number of microseconds, not '{40 * '9'}'…"),
        ("a,1,2,walk,high", "a confidence is a number, not 'high'"),
        (f"a,1,2,walk,{5000 * '9'}", f"a confidence is a number, not '{40 * '9'}'…"),
        ("a,1,2,walk,nan", "a confidence is a number, not 'nan'"),
        ("a,5,5,walk", "a span begins before it ends, not from 5 to 5 us"),
        (f"a,1,2,{'x' * 200_000}", "field larger than field limit (131072)"),
    ],
    ids=range(11),
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "labels.csv").write_text(f"{HEAD}{line}\n")
    with pytest.raises(ValueError) as caught:
        read_label_rows(tmp_path / "labels.csv")
    assert str(caught.value) == f"{tmp_path / 'labels.csv'}, line 2: {says}"


@pytest.mark.parametrize("text", ["", "\n\n", "a\n", "recording,start_us,label\n"])
def test_a_file_without_the_columns_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match="labels.csv, line .: it lacks the column end_us"):
        read_label_rows(tmp_path / "labels.csv")


def test_a_file_larger_than_any_list_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(HEAD)
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    with pytest.raises(ValueError, match="labels.csv is larger than any list of labels"):
        read_label_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_list_of_millions_of_short_lines_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"a,0,1,b\n" * 600_000)
    with pytest.raises(ValueError, match="labels.csv has more lines than any list of labels; 500,000 are read"):
        read_label_rows(path)
