"""A stranger's words, shown and stored."""

from __future__ import annotations

import os

from streams.text import on_one_line, printable, shortened, storable


def test_nothing_steers_a_terminal_or_breaks_a_line() -> None:
    assert printable("a\x1b[31mb\nc\u202e") == "a?[31mb?c?"
    assert printable("a\tb", " ") == "a b" and printable("♥ 7 é") == "♥ 7 é"


def test_a_name_that_is_no_utf_8_is_spelled_out() -> None:
    assert storable(os.fsdecode(b"a\xff.aedat4")) == "a\\udcff.aedat4" and storable("é") == "é"


def test_what_is_too_long_ends_in_dots() -> None:
    assert shortened("abc", 3) == "abc" and shortened("abcd", 3) == "ab…"
    assert on_one_line(" a\n b\tc ", 5) == "a b c" and on_one_line("a\nb\nc", 4) == "a b…"
