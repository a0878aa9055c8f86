"""Cells that no spreadsheet takes for a formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.cells import plain, safe
from streams.record import label_row


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=x", "''=x"])
def test_what_would_run_gets_an_apostrophe(text: str) -> None:
    assert safe(text) == "'" + text


@pytest.mark.parametrize("text", ["", "walk", "a=b", "'quoted'", "it's", "a,b", '"', "ü"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert safe(text) == plain(text) == text


@given(st.text(st.sampled_from("'=+-@\t\ra"), max_size=5))
def test_a_text_comes_back(text: str) -> None:
    assert plain(safe(text)) == text
    assert safe(text)[:1] not in tuple("=+-@\t\r")


def test_a_row_of_a_recording_whose_name_is_no_utf_8_can_be_stored() -> None:
    row = label_row(b"caf\xe9.aedat4".decode(errors="surrogateescape"), 0, 1, "a", None)
    assert row[0].encode() == b"caf\\udce9.aedat4"
