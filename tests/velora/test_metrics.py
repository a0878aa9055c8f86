"""Figures of an evaluation, beside examples computed by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from velora.training import metrics

LABELS = ("a", "b", "c", "d")
# Predictions a, a, b, b (a tie of b and c), c; nothing is called d, and no window is of class d.
PROBABILITIES = np.array(
    [[0.7, 0.1, 0.1, 0.1], [0.5, 0.3, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1], [0.0, 0.1, 0.9, 0.0]]
)
TRUTH = np.array([0, 1, 1, 2, 2])


def one_hot(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[predicted]


def test_scores_by_hand() -> None:
    scores = metrics.score(PROBABILITIES, TRUTH, LABELS, unsure_below=0.5)
    assert (scores.top1, scores.top5, scores.windows) == (0.6, 1.0, 5)
    assert scores.unsure == 0.2  # 0.4 alone; 0.5 is not below 0.5
    assert scores.nll == pytest.approx(-np.log(0.7 * 0.3 * 0.6 * 0.4 * 0.9) / 5)
    # 0.7, 0.5, 0.6, 0.4 and 0.9 lie in bins of their own: |1 - .7| + |0 - .5| + |1 - .6| + |0 - .4| + |1 - .9|
    assert scores.ece == pytest.approx(1.7 / 5)


def test_scores_of_each_class_by_hand() -> None:
    rows = metrics.score(PROBABILITIES, TRUTH, LABELS).per_class
    assert rows["a"] == {"windows": 1, "recall": 1, "precision": 0.5, "f1": pytest.approx(2 / 3)}
    assert rows["b"] == {"windows": 2, "recall": 0.5, "precision": 0.5, "f1": 0.5}
    assert rows["c"] == {"windows": 2, "recall": 0.5, "precision": 1, "f1": pytest.approx(2 / 3)}
    assert rows["d"]["windows"] == 0 and all(math.isnan(rows["d"][name]) for name in ("recall", "precision", "f1"))


def test_a_class_that_is_only_predicted_has_no_recall_but_precision() -> None:
    row = metrics.score(one_hot([1, 1], 2), np.array([0, 0]), ("a", "b")).per_class["b"]
    assert math.isnan(row["recall"]) and row["precision"] == 0 and row["f1"] == 0


def test_confusion_has_the_truth_in_rows() -> None:
    counts = metrics.confusion(PROBABILITIES, TRUTH, 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_ties_go_to_the_lowest_index_in_top5_too() -> None:
    even = np.full((6, 6), 1 / 6)
    scores = metrics.score(even, np.arange(6), tuple("abcdef"))
    assert scores.top1 == pytest.approx(1 / 6) and scores.top5 == pytest.approx(5 / 6)


def test_everything_wrong_is_certain_and_finite() -> None:
    scores = metrics.score(one_hot([1, 0], 2), np.array([0, 1]), ("a", "b"))
    assert (scores.top1, scores.top5, scores.ece) == (0, 1, 1)
    assert np.isfinite(scores.nll) and scores.nll > 700


def test_one_class_only() -> None:
    scores = metrics.score(np.ones((3, 1)), np.zeros(3, int), ("a",))
    assert (scores.top1, scores.top5, scores.ece, scores.nll) == (1, 1, 0, 0)


def test_reliability_by_hand() -> None:
    confidence = np.array([0.5, 0.6, 0.75, 0.8, 1.0])  # a bin's upper edge belongs to it
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = metrics.reliability(probabilities, np.array([0, 1, 0, 0, 0]), bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.count.tolist() == [0, 1, 2, 2]
    np.testing.assert_allclose(found.accuracy, [np.nan, 1, 0.5, 1])
    np.testing.assert_allclose(found.confidence, [np.nan, 0.5, 0.675, 0.9])
    assert found.ece == pytest.approx((0.5 + 2 * 0.175 + 2 * 0.1) / 5)


@pytest.mark.parametrize("known", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(known: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(20_000, 5)) * 2
    odds = np.exp(logits / known)
    truth = (odds.cumsum(axis=1) > rng.random((len(odds), 1)) * odds.sum(axis=1, keepdims=True)).argmax(axis=1)
    assert metrics.fit_temperature(logits, truth) == pytest.approx(known, rel=0.03)
    assert metrics.fit_temperature(logits, truth) == metrics.fit_temperature(logits, truth)


def test_temperature_by_hand() -> None:
    logits, truth = np.tile([[2.0, 0.0]], (4, 1)), np.array([0, 0, 0, 1])
    share = 5 / 6 * 3 / 4 + 1 / 6 * 1 / 2  # right 3 of 4, and one in 4 + 2 counts as either
    assert metrics.fit_temperature(logits, truth) == pytest.approx(2 / np.log(share / (1 - share)), rel=1e-6)


def test_temperature_stays_within_its_bounds_and_is_1_where_it_does_not_matter() -> None:
    wrong = np.array([[0.0, 3.0]])
    assert metrics.fit_temperature(wrong, np.array([0])) == pytest.approx(20)
    assert metrics.fit_temperature(1e-3 * np.tile([[3.0, 0.0]], (999, 1)), np.zeros(999, int)) == pytest.approx(0.05)
    assert metrics.fit_temperature(np.zeros((2, 3)), np.array([0, 1])) == 1


@pytest.mark.parametrize("count", [2, 20, 200])
def test_a_few_right_answers_do_not_make_certain(count: int) -> None:
    logits = np.tile([[3.0, 0.0, 0.0]], (count, 1))
    probabilities = np.exp(logits[0] / metrics.fit_temperature(logits, np.zeros(count, int)))
    assert 0.5 < probabilities[0] / probabilities.sum() < 1 - 0.5 / (count + 2)


def test_labels_that_occur_twice_are_told_apart() -> None:
    found = metrics.score(np.eye(3), np.array([0, 1, 2]), ("a", "b", "a"))
    assert list(found.per_class) == ["a [0]", "b", "a [2]"]


@pytest.mark.parametrize(
    ("confidence", "right", "precision", "threshold"),
    [
        ([0.6, 0.7, 0.8], [1, 1, 1], 0.98, 0.5),  # all may be said: 1 / C
        ([0.6, 0.7, 0.8], [0, 1, 1], 0.98, 0.7),
        ([0.6, 0.7, 0.8], [0, 1, 0], 0.5, 0.7),  # 0.8 alone is wrong, with 0.7 half is right
        ([0.7, 0.7, 0.8], [0, 1, 1], 0.98, 0.8),  # equal confidences are taken together
        ([0.6, 0.95, 0.99], [1, 0, 1], 0.98, 0.9),  # 0.99, capped
        ([0.6, 0.7, 0.8], [0, 0, 0], 0.98, 0.9),  # never
    ],
)
def test_unsure_threshold(confidence: list[float], right: list[int], precision: float, threshold: float) -> None:
    probabilities = np.stack([confidence, 1 - np.array(confidence)], axis=1)
    assert metrics.unsure_threshold(probabilities, 1 - np.array(right), precision=precision) == threshold


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng, group = np.random.default_rng(0), np.repeat(np.arange(40), 5)
    covered = 0
    for seed in range(100):
        correct = (rng.random(40) < 0.7).repeat(5)  # the windows of a scene are right or wrong together
        low, high = metrics.bootstrap(correct, group, seed=seed)
        covered += low <= 0.7 <= high
    assert 88 <= covered <= 99


def test_bootstrap_draws_groups_and_has_a_seed() -> None:
    correct, group = np.array([True] * 50 + [False] * 50), np.repeat([7, 3], 50)
    assert metrics.bootstrap(correct, group) == (0, 1)  # both drawn from one group a quarter of the time each
    assert np.isnan(metrics.bootstrap(correct, np.zeros(100, int))).all()  # of one scene nobody knows
    single = np.arange(100)
    assert metrics.bootstrap(correct, single, seed=4) == metrics.bootstrap(correct, single, seed=4)
    narrow, wide = (np.diff(metrics.bootstrap(correct, single, level=level)) for level in (0.5, 0.95))
    assert 0 < narrow < wide < 0.3


def test_delays_by_hand() -> None:
    t_us = np.arange(0, 1200, 100)
    predicted = list("aaaabbbccbcc")
    #                 a   |b        |c      ; b comes 100 late; c holds for 2 predictions at a time only
    spans = [(0, 300, "a"), (300, 700, "b"), (700, 1200, "c")]
    assert metrics.delays(t_us, np.array(predicted), spans) == [100, None]
    assert metrics.delays(t_us, np.array([ord(c) for c in predicted]), [(0, 300, 97), (300, 700, 98)]) == [100]


def test_delays_join_spans_of_one_label_and_end_with_it() -> None:
    t_us, predicted = np.arange(0, 600, 100), np.array(list("aabbba"))
    assert metrics.delays(t_us, predicted, [(0, 200, "a"), (200, 300, "b"), (300, 500, "b")]) == [0]
    assert metrics.delays(t_us, predicted, [(0, 200, "a"), (200, 400, "b"), (400, 600, "a")]) == [None, None]
    assert metrics.delays(t_us, predicted, [(0, 600, "a")]) == []


def test_json_has_no_nan() -> None:
    told = metrics.to_json(metrics.score(PROBABILITIES, TRUTH, LABELS))
    assert list(told) == ["top1", "top5", "windows", "per_class", "ece", "nll", "unsure"]
    assert told["per_class"]["d"] == {"windows": 0, "recall": None, "precision": None, "f1": None}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        (np.empty((0, 3)), np.empty(0, int), "no windows"),
        (np.ones((2, 3)), np.zeros(3, int), "must be"),
        (np.ones((2, 3)), np.array([0, 3]), "classes 0..3 in the truth"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "finite"),
    ],
)
def test_what_cannot_be_scored(probabilities: np.ndarray, truth: np.ndarray, message: str) -> None:
    for function in (metrics.fit_temperature, metrics.unsure_threshold, metrics.reliability):
        with pytest.raises(ValueError, match=message):
            function(probabilities, truth)
    with pytest.raises(ValueError, match=message):
        metrics.score(probabilities, truth, ("a", "b", "c"))
    with pytest.raises(ValueError, match=message):
        metrics.confusion(probabilities, truth, 3)


def test_labels_and_groups_must_fit() -> None:
    with pytest.raises(ValueError, match="2 labels for 4 classes"):
        metrics.score(PROBABILITIES, TRUTH, ("a", "b"))
    with pytest.raises(ValueError, match="of 4 classes, not 3"):
        metrics.confusion(PROBABILITIES, TRUTH, 3)
    with pytest.raises(ValueError, match="not empty"):
        metrics.bootstrap(np.empty(0, bool), np.empty(0, int))
