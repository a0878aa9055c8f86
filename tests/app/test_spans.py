"""Labels by hand: on disk with each change, beside the recording or in the user's folder, and fit to train on."""

from __future__ import annotations

import errno
import sys
import threading
from pathlib import Path

import pytest

import app.spans
from app.data_folder import user_data_folder
from app.label_file import read_label_rows
from app.spans import LabelSpan, SpanBook, SpanBooks
from streams import RecordingError
from streams.record import labels_of


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "set" / "walk.aedat4"
    path.parent.mkdir()
    path.write_bytes(b"it is not looked into")
    return path


def book_of(recording: Path) -> SpanBook:
    return SpanBook(recording, recording.parents[1] / "user")


def shown(book: SpanBook) -> list[tuple[int, int, str]]:
    return [(span.start_us, span.end_us, span.label) for span in book.spans]


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path, code: int = errno.EROFS) -> None:
    """No file in a folder can be written."""
    write = app.spans.write_label_rows

    def refuse(path: Path, rows: object) -> None:
        if path.parent == folder:
            raise OSError(code, "it is not to be written on")
        write(path, rows)  # type: ignore[arg-type]

    monkeypatch.setattr("app.spans.write_label_rows", refuse)


def test_each_change_is_on_disk_at_once(recording: Path) -> None:
    book = book_of(recording)
    assert book.spans == () and not book.path.exists()
    book.mark(200, 300, "wave")
    book.mark(0, 100, ' a "label", with a comma ')
    assert shown(book) == [(0, 100, 'a "label", with a comma'), (200, 300, "wave")]
    assert book.path == labels_of(recording)
    rows = read_label_rows(book.path)
    assert [(row.recording, row.label) for row in rows] == [("walk.aedat4", span.label) for span in book.spans]
    assert book_of(recording).spans == book.spans
    assert [path.name for path in recording.parent.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((150, 250), [(100, 150, "a"), (150, 250, "new"), (250, 300, "b")]),
        ((0, 1000), [(0, 1000, "new")]),
        ((120, 130), [(100, 120, "a"), (120, 130, "new"), (130, 200, "a"), (200, 300, "b")]),
        ((100, 200), [(100, 200, "new"), (200, 300, "b")]),
        ((300, 400), [(100, 200, "a"), (200, 300, "b"), (300, 400, "new")]),
    ],
)
def test_a_correction_replaces_what_it_overlaps(
    recording: Path, span: tuple[int, int], expected: list[tuple[int, int, str]]
) -> None:
    book = book_of(recording)
    book.mark(100, 200, "a")
    book.mark(200, 300, "b")
    book.mark(*span, "new")
    assert shown(book) == expected
    book.erase(*span)
    assert shown(book) == [row for row in expected if row[2] != "new"]


def test_each_change_can_be_taken_back(recording: Path) -> None:
    book = book_of(recording)
    book.mark(0, 100, "a")
    book.mark(50, 150, "b")
    book.erase(0, 60)
    assert shown(book) == [(60, 150, "b")]
    for expected in ([(0, 50, "a"), (50, 150, "b")], [(0, 100, "a")], []):
        assert book.can_undo and book.undo() and shown(book) == expected == shown(book_of(recording))
    assert not book.can_undo and not book.undo()


def test_a_recognisers_confidence_stays_with_what_was_not_corrected(recording: Path) -> None:
    labels_of(recording).write_text(
        "recording,start_us,end_us,label,confidence\nwalk.aedat4,100,200,a,0.7500\nwalk.aedat4,0,100,b,0.5000\n"
    )
    book = book_of(recording)
    book.mark(150, 250, "c")
    assert book.spans == (LabelSpan(0, 100, "b", 0.5), LabelSpan(100, 150, "a", 0.75), LabelSpan(150, 250, "c"))
    assert book.path.read_text().splitlines()[3] == "walk.aedat4,150,250,c,"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("walk.aedat4,0,soon,a", "walk.labels.csv, line 3: .*soon"),
        ("walk.aedat4,7,7,a", "line 3: a span begins before it ends, not from 7 to 7 us"),
        ("walk.aedat4,5,9, ", "line 3: a span has a recording and a label"),
        ("walk.aedat4,5,9,a,0.5,0.5", "line 3: it has too many cells: a label with a comma stands in quotes"),
        ("walk.aedat4,5,9,a,high", "line 3: .*high"),
        ("walk.aedat4,5,9,a,nan", "line 3: a confidence is a number"),
        (f"walk.aedat4,5,9,{'x' * 201}", "line 3: .*at most 200 characters"),
        ("run.aedat4,5,9,a", "line 3: it is of 'run.aedat4', not of walk.aedat4"),
        ("walk.aedat4,2,5,a", "line 3: it overlaps line 2"),
        ("walk.aedat4,5", "line 3: "),
    ],
)
def test_a_broken_file_is_named_and_left_as_it_is(recording: Path, row: str, message: str) -> None:
    file = labels_of(recording)
    text = f"recording,start_us,end_us,label,confidence\nwalk.aedat4,0,4,b,\n{row}\n"
    file.write_text(text)
    book = book_of(recording)
    for call in (lambda: book.spans, lambda: book.mark(20, 30, "a"), book.undo, lambda: book.erase(0, 9)):
        with pytest.raises(ValueError, match=message):
            call()
    assert file.read_text() == text
    file.write_text("\n".join(text.splitlines()[:2]))
    assert shown(book) == [(0, 4, "b")]


def test_a_file_that_is_no_table_is_named(recording: Path) -> None:
    for data in (b"\xff\xfe\x00", b"recording,label\n", b""):
        labels_of(recording).write_bytes(data)
        with pytest.raises(ValueError, match=r"walk\.labels\.csv"):
            _ = book_of(recording).spans


@pytest.mark.parametrize("label", ["", "  ", "two\nlines", "x" * 201, "\x1b[31m"])
def test_what_is_no_label_is_refused(recording: Path, label: str) -> None:
    book = book_of(recording)
    with pytest.raises(ValueError, match="must be printable text of at most 200 characters"):
        book.mark(0, 10, label)
    assert not book.path.exists()


def test_what_is_no_span_is_refused(recording: Path) -> None:
    for start_us, end_us in ((5, 5), (9, 5), (0, 1 << 70)):
        for call in (book_of(recording).erase, lambda a, b: book_of(recording).mark(a, b, "a")):
            with pytest.raises(ValueError, match="a span begins before it ends"):
                call(start_us, end_us)


def test_what_somebody_else_writes_is_seen_and_not_undone(recording: Path) -> None:
    mine, other = book_of(recording), book_of(recording)
    mine.mark(0, 100, "a")
    other.mark(100, 200, "b")
    assert shown(mine) == [(0, 100, "a"), (100, 200, "b")]
    assert not mine.undo()
    mine.mark(200, 300, "c")
    assert other.spans == mine.spans and len(mine.spans) == 3
    mine.path.unlink()
    assert mine.spans == ()


def test_tabs_share_a_book_as_long_as_one_is_open(recording: Path, tmp_path: Path) -> None:
    books = SpanBooks(tmp_path / "user")
    one, same = books.of(recording), books.of(recording.parent / ".." / "set" / recording.name)
    assert one is same and one is not books.of(recording.with_name("other.aedat4"))

    def edit(first: int) -> None:
        for k in range(10):
            books.of(recording).mark(first + 10 * k, first + 10 * k + 5, f"label {first}")

    threads = [threading.Thread(target=edit, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(one.spans) == 40 and book_of(recording).spans == one.spans


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_where_the_folder_cannot_be_written_the_users_takes_the_labels(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    twin = tmp_path / "other" / recording.name
    twin.parent.mkdir()
    twin.write_bytes(b"")
    labels_of(recording).write_text("recording,start_us,end_us,label\nwalk.aedat4,0,100,a\n")
    forbid(monkeypatch, recording.parent, code)
    forbid(monkeypatch, twin.parent, code)
    book = book_of(recording)
    book.mark(50, 150, "b")
    book_of(twin).mark(0, 10, "c")
    assert shown(book) == shown(book_of(recording)) == [(0, 50, "a"), (50, 150, "b")]
    assert shown(book_of(twin)) == [(0, 10, "c")]
    assert book.path.parent == tmp_path / "user" / "labels" and book.path.name.startswith("walk-")
    assert labels_of(recording).read_text().endswith("walk.aedat4,0,100,a\n")
    assert book.undo() and shown(book) == [(0, 100, "a")]


def test_the_users_labels_are_beside_a_link_to_the_recording(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, recording.parent)
    book = book_of(recording)
    book.mark(0, 10, "a")
    (row,) = read_label_rows(book.path)
    link = book.path.parent / row.recording
    assert link.resolve() == recording and labels_of(link) == book.path
    assert shown(book_of(link)) == [(0, 10, "a")]


def test_recordings_that_ship_with_the_program_stay_as_they_are(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.spans._BUNDLED", recording.parent)
    book_of(recording).mark(0, 10, "a")
    assert shown(book_of(recording)) == [(0, 10, "a")] and not labels_of(recording).exists()


def test_where_nothing_can_be_written_nothing_changes(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(recording)
    book.mark(0, 10, "a")
    with monkeypatch.context() as patch:
        forbid(patch, recording.parent, errno.ENOSPC)
        with pytest.raises(RecordingError, match="walk.labels.csv cannot be written: .*; make room"):
            book.mark(20, 30, "b")
    assert shown(book) == [(0, 10, "a")]
    forbid(monkeypatch, recording.parent)
    forbid(monkeypatch, tmp_path / "user" / "labels")
    with pytest.raises(RecordingError, match="cannot be written .*; set VELORA_DATA"):
        book.erase(0, 5)
    assert shown(book) == [(0, 10, "a")]


def test_the_users_folder_is_the_systems_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VELORA_DATA", str(tmp_path / "mine"))
    assert user_data_folder() == tmp_path / "mine"
    monkeypatch.delenv("VELORA_DATA")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_data_folder() == tmp_path / "velora"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert user_data_folder() == Path.home() / ".local" / "share" / "velora"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert user_data_folder() == Path.home() / "Library" / "Application Support" / "velora"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert user_data_folder() == tmp_path / "local" / "velora"
