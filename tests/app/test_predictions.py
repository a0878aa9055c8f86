"""The predictions of a session, saved as JSON lines and CSV."""

from __future__ import annotations

import csv
import json

import pytest

from app import predictions as module
from app.predictions import HEADINGS, Predictions
from tests.app.fakes import prediction


def objects(predictions: Predictions, name: str = "cards.aedat4") -> list[dict]:
    return [json.loads(line) for line in predictions.as_jsonl(name)]


def test_they_come_out_in_order_of_time_and_each_moment_once() -> None:
    predictions = Predictions()
    for index, label in ((5, "A"), (6, "K"), (2, "A"), (5, "2")):  # sought back, and played again
        predictions.add(prediction(index, label, 0.75))
    found = objects(predictions)
    assert [(row["t_end_us"], row["label"]) for row in found] == [(3_000, "A"), (6_000, "2"), (7_000, "K")]
    assert found[0]["topk"][0] == ["A", 0.75] and len(found[0]["topk"]) == 5
    assert found[0]["recording"] == "cards.aedat4" and found[0]["model"] == "fake" and found[0]["unsure"] is False


def test_there_is_nothing_before_the_first() -> None:
    assert objects(Predictions()) == [] and list(Predictions().as_csv("x")) == []


def test_the_oldest_go_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    predictions = Predictions()
    for index in range(250):
        predictions.add(prediction(index))
    assert [row["t_end_us"] for row in objects(predictions)] == [1_000 * (k + 1) for k in range(150, 250)]


def test_cells_of_csv_are_no_formulas() -> None:
    predictions = Predictions()
    predictions.add(prediction(0, '=HYPERLINK("x")', 0.5))
    predictions.add(prediction(1, "a, b", 0.25, unsure=True))
    rows = list(csv.DictReader([HEADINGS, *predictions.as_csv("@cards, old.aedat4")]))
    assert [row["label"] for row in rows] == ['\'=HYPERLINK("x")', "a, b"]
    assert rows[0]["recording"] == "'@cards, old.aedat4"
    assert [(row["start_us"], row["end_us"], row["unsure"]) for row in rows] == [
        ("0", "1000", "0"),
        ("1000", "2000", "1"),
    ]
