"""Labels of windows become spans that do not flicker, and a label to show that does not either."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.spans import LabelSpan, Said, SpanRules, Steady, spans_of


def said(text: str, *, first_us: int = 0, period_us: int = 100, window_us: int = 300) -> list[Said]:
    """A window a letter, one period after the other; a dot is an unsure one, a lower letter says less surely."""
    return [
        Said(
            first_us + k * period_us,
            first_us + k * period_us + window_us,
            "?" if letter == "." else letter.upper(),
            0.1 if letter == "." else 0.6 if letter.islower() else 0.9,
            letter == ".",
        )
        for k, letter in enumerate(text)
    ]


def shown(text: str, after: int = 3) -> str:
    steady = Steady(after)
    return "".join(steady.push(window.label, window.confidence, window.unsure) or "." for window in said(text))


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("AAAA", 3, "AAAA"),
        ("..AAA", 3, "..AAA"),
        ("AAABAAA", 3, "AAAAAAA"),
        ("AAABBBB", 3, "AAAAABB"),
        ("ABABABAB", 3, "AAAAAAAA"),
        ("ABCBCBCB", 3, "AAAAAAAA"),
        ("AABCCCC", 3, "AAAAACC"),
        ("AA..AA", 3, "AAAAAA"),
        ("AA....B", 3, "AAAA..B"),
        ("ABAB", 1, "ABAB"),
        ("A.B", 1, "A.B"),
        ("AABBAA", 2, "AAABBA"),
    ],
)
def test_a_label_stays_until_another_was_said_often_enough(text: str, after: int, expected: str) -> None:
    assert shown(text, after) == expected


def test_the_confidence_shown_is_that_of_the_windows_that_said_the_label() -> None:
    steady = Steady(2)
    assert steady.confidence == 0
    for label, confidence in [("A", 0.9), ("B", 0.5), ("A", 0.7)]:
        steady.push(label, confidence)
    assert steady.confidence == pytest.approx(0.8)
    steady.push("B", 0.5)
    steady.push("B", 0.6)
    assert (steady.shown, steady.confidence) == ("B", pytest.approx(0.6))
    steady.clear()
    assert (steady.shown, steady.confidence) == (None, 0)


def bounds(spans: list[LabelSpan]) -> list[tuple[int, int, str]]:
    return [(span.start_us, span.end_us, span.label) for span in spans]


@pytest.mark.parametrize(
    ("text", "rules", "expected"),
    [
        ("", SpanRules(), []),
        ("A", SpanRules(3, 0), [(0, 300, "A")]),
        ("AAAA", SpanRules(3, 0), [(0, 600, "A")]),
        ("AAABAAA", SpanRules(3, 0), [(0, 900, "A")]),
        # B holds since the first window that said it, although it is shown only after the third.
        ("AAABBBB", SpanRules(3, 0), [(0, 500, "A"), (500, 900, "B")]),
        ("AAA...BBB", SpanRules(3, 0), [(0, 500, "A"), (800, 1100, "B")]),
        ("...", SpanRules(3, 0), []),
        ("ABAB", SpanRules(1, 0), [(0, 300, "A"), (300, 400, "B"), (400, 500, "A"), (500, 600, "B")]),
        # What is short is part of its neighbours, where they say the same …
        ("AABAA", SpanRules(1, 200), [(0, 700, "A")]),
        ("AA.AA", SpanRules(1, 200), [(0, 700, "A")]),
        # … and left out where they do not.
        ("AABCC", SpanRules(1, 200), [(0, 400, "A"), (500, 700, "C")]),
        ("ABABABAB", SpanRules(1, 200), [(0, 900, "A")]),
        ("A", SpanRules(1, 400), []),
    ],
)
def test_windows_become_spans(text: str, rules: SpanRules, expected: list[tuple[int, int, str]]) -> None:
    assert bounds(spans_of(said(text), rules)) == expected


def test_a_span_does_not_cover_what_no_window_saw() -> None:
    windows = said("AAA") + said("AAA", first_us=1_000)
    assert bounds(spans_of(windows, SpanRules(3, 0))) == [(0, 500, "A"), (1_000, 1_500, "A")]
    sparse = said("AAA", period_us=1_000)
    assert bounds(spans_of(sparse, SpanRules(3, 0))) == [(0, 300, "A"), (1_000, 1_300, "A"), (2_000, 2_300, "A")]


def test_hysteresis_starts_anew_behind_a_gap() -> None:
    windows = said("AAA") + said("B", first_us=1_000)
    assert bounds(spans_of(windows, SpanRules(3, 0))) == [(0, 500, "A"), (1_000, 1_300, "B")]


def test_time_that_jumps_back_gives_no_two_labels_at_once() -> None:
    windows = said("AAAA") + said("BBBBBBB")
    assert bounds(spans_of(windows, SpanRules(1, 0))) == [(0, 600, "A"), (600, 900, "B")]


def test_the_confidence_of_a_span_is_the_mean_over_time_of_the_windows_that_said_it() -> None:
    (span,) = spans_of(said("AaaBA"), SpanRules(3, 0))  # 300 us at 0.9, twice 100 at 0.6, 100 at 0.9
    assert span.confidence == pytest.approx((300 * 0.9 + 200 * 0.6 + 100 * 0.9) / 600)


@given(st.text(st.sampled_from("AaBbC."), max_size=30), st.integers(1, 4), st.sampled_from([0, 150, 400]))
def test_spans_are_disjoint_in_order_and_long_enough(text: str, after: int, min_us: int) -> None:
    windows = said(text)
    spans = spans_of(windows, SpanRules(after, min_us))
    assert all(a.end_us <= b.start_us for a, b in zip(spans, spans[1:], strict=False))
    assert all(a.label != b.label or a.end_us < b.start_us for a, b in zip(spans, spans[1:], strict=False))
    for span in spans:
        assert span.end_us - span.start_us >= max(min_us, 1)
        sure = [w.confidence for w in windows if w.label == span.label and not w.unsure]
        assert min(sure) - 1e-9 <= span.confidence <= max(sure) + 1e-9


@pytest.mark.parametrize("wrong", [{"after": 0}, {"min_us": -1}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="after must be 1 or more and min_us 0 or more"):
        SpanRules(**wrong)
