"""Pictures of an evaluation and a README.md that shows them; and the paper's Figure 1 of several models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from streams.files import replaced_when_whole
from streams.text import on_one_line
from velora.training import metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933")  # Okabe and Ito's
_MARKERS = "osD^v<>PX*pdh8H"
_FEW = 20  # classes, of which the confusion matrix shows counts
_IN_A_COLUMN = 60  # bars
_MOTION_FILMS = 3
_GAP = 4  # pixels between the images of a film
_LONGEST = 28  # characters of a label in a picture
_PICTURES = {
    "confusion.png": "Confusion matrix: true classes in rows, labels given in columns; rows add up to 1",
    "reliability.png": "Reliability: accuracy beside confidence, and how often each confidence is given",
    "per_class.png": "Recall of each class, and its windows",
    "features.png": "What the head reads of each window, in two dimensions",
    "films.png": "The most confident windows that are right, and that are wrong: RGB above event images",
    "motion.png": "Difference images of RGB and of event images (the paper's Figure 5)",
}


class NoMatplotlib(ModuleNotFoundError):
    """Pictures were asked for where matplotlib is not installed."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What there is to show of n windows and C classes."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]  # [n, C]
    truth: NDArray[np.int64]  # [n]
    clips: Sequence[str]  # [n] name of the clip of each window
    features: NDArray[np.float32] | None  # [m, F] the head's input, of some windows
    featured: NDArray[np.int64]  # [m] of which
    films: Mapping[int, NDArray[np.uint8]]  # window -> its RGB and event images [T, 2, S, S, 3]; of a few windows
    unsure_below: float
    delay_ms: Mapping[str, float | int | None] | None  # median, and how many of how many changes were followed
    notes: Mapping[str, str]  # for the table in README.md: model, data, split, protocol, command, modality, …


def write_report(folder: Path, evaluation: Evaluation, *, title: str) -> None:
    """Write scores.json, the pictures and README.md to `folder`; pictures of an earlier report do not stay.

    Raises ValueError for what `metrics.score` does not take, and NoMatplotlib.
    """
    e = evaluation
    scores = metrics.score(e.probabilities, e.truth, e.labels, unsure_below=e.unsure_below)
    drawn = dict(_draw(e, scores))
    for name, figure in drawn.items():
        _write(folder / name, figure)
    for name in _PICTURES.keys() - drawn.keys():
        (folder / name).unlink(missing_ok=True)
    low, high = interval = _interval(e)
    found = metrics.to_json(scores) | {"top1_interval": None if np.isnan(low) else [low, high], "delay_ms": e.delay_ms}
    _write(folder / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    _write(folder / "README.md", "\n".join(_readme(e, scores, interval, title, list(drawn))) + "\n")


def choose_films(probabilities: NDArray[np.float64], truth: NDArray[np.int64], count: int = 6) -> list[int]:
    """Windows to show: half of them right, half wrong, each by falling confidence; more of one where the other lacks.

    Probabilities [n, C], true classes [n].
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = (probabilities.argmax(axis=1) == truth)[order]
    best, worst = order[right].tolist(), order[~right].tolist()
    wrong_ones = min(len(worst), max(count // 2, count - len(best)))
    return [*best[: count - wrong_ones], *worst[:wrong_ones]]


def bubble_chart(path: Path, rows: Sequence[tuple[str, float, float, int]], *, of: str = "training") -> None:
    """The paper's Figure 1: accuracy over training time, bubbles as large as what is trained.

    Rows of name, seconds `of` something, top-1 share, trained parameters. Raises ValueError where there are none.
    """
    if not rows:
        raise ValueError("there is nothing to draw bubbles of")
    figure = empty_figure(9, 5)
    axis = figure.add_subplot()
    most = max(1, *(trained for *_, trained in rows))
    for i, (name, seconds, top1, trained) in enumerate(rows):
        colour, size = _COLOURS[i % len(_COLOURS)], 1500 * trained / most
        shape = _MARKERS[i // len(_COLOURS) % len(_MARKERS)]
        label = f"{_plain(name)}: {trained / 1e6:.2f} M"
        axis.scatter(seconds / 60, 100 * top1, size + 9, color=colour, marker=shape, alpha=0.5, lw=1.5, label=label)
    axis.margins(0.2)
    axis.grid(alpha=0.3)
    axis.set(xlim=(0, None), xlabel=f"{of}, minutes", ylabel="top-1, %")
    legend = axis.legend(title="area: trained parameters", loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(sizes=[40])
    _write(path, figure)


def _draw(e: Evaluation, scores: metrics.Scores) -> Iterator[tuple[str, Figure]]:
    yield "confusion.png", _confusion(metrics.confusion(e.probabilities, e.truth, len(e.labels)), e.labels)
    yield "reliability.png", _reliability(e)
    yield "per_class.png", _per_class(scores)
    if e.features is not None:
        yield "features.png", _features(e.features, e.truth[e.featured], e.labels)
    films = _films_in_order(e)
    if films:
        yield "films.png", _strips({caption: film.swapaxes(0, 1) for caption, film in films.items()}, "")
    moving = {caption: _motion(film) for caption, film in list(films.items())[:_MOTION_FILMS] if len(film) > 1}
    if moving:
        yield "motion.png", _strips(moving, "Change from image to image, each row as bright as its largest change")


def _confusion(counts: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    classes = len(labels)
    side = max(3.0, classes * (0.45 if classes <= _FEW else 0.1 if classes > 100 else 0.17))
    figure = empty_figure(side + 2.5, side + 2)
    axis = figure.add_subplot()
    windows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, windows, out=np.full(counts.shape, np.nan), where=windows > 0)
    axis.set_facecolor("#dddddd")  # of rows without windows
    image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axis, shrink=0.6, aspect=30, label="share of the true class")
    names, size = [_plain(label) for label in labels], 8 if classes <= 100 else 6
    axis.set_xticks(range(classes), names, rotation=90, fontsize=size)
    axis.set_yticks(range(classes), names, fontsize=size)
    axis.set(xlabel="label given", ylabel="truth", title="Confusion")
    if classes <= _FEW:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axis.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=8)
    return figure


def _reliability(e: Evaluation) -> Figure:
    found = metrics.reliability(e.probabilities, e.truth)
    figure = empty_figure(6, 6.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 1 / len(found.count)
    above.bar(found.edges[:-1], np.nan_to_num(found.accuracy), width, align="edge", color=_COLOURS[0], edgecolor="w")
    above.plot((0, 1), (0, 1), "--", color="black", label="as confident as right")
    above.plot(found.confidence, found.accuracy, "o", color=_COLOURS[1], label="mean confidence of a bin")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy", title=f"Reliability: ECE {found.ece:.3f}")
    above.legend(fontsize=8)
    below.bar(found.edges[:-1], found.count, width, align="edge", color="#999999", edgecolor="w")
    below.axvline(e.unsure_below, color=_COLOURS[3], label=f"unsure below {e.unsure_below:.2f}")
    below.set(xlabel="confidence", ylabel="windows")
    below.legend(fontsize=8)
    return figure


def _per_class(scores: metrics.Scores) -> Figure:
    rows = sorted(scores.per_class.items(), key=lambda row: -np.nan_to_num(row[1]["recall"], nan=-1.0))
    columns = [rows[k : k + _IN_A_COLUMN] for k in range(0, len(rows), _IN_A_COLUMN)]
    figure = empty_figure(2 + 3.5 * len(columns), max(3.0, 1 + 0.17 * len(columns[0])))
    figure.suptitle("Recall, and windows of the class")
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        axis.barh(range(len(column)), [np.nan_to_num(row["recall"]) for _, row in column], color=_COLOURS[5])
        for k, (_, row) in enumerate(column):
            axis.text(0.01, k, f"{row['windows']:.0f}", va="center", fontsize=7)
        axis.set_yticks(range(len(column)), [_plain(label) for label, _ in column], fontsize=8)
        axis.set(xlim=(0, 1), ylim=(len(columns[0]) - 0.4, -0.6))
    return figure


def _features(features: NDArray[np.float32], truth: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    points, explained = _pca(features)
    figure = empty_figure(8, 6)
    axis = figure.add_subplot()
    if len(labels) <= len(_MARKERS):
        for k, label in enumerate(labels):
            own, colour = points[truth == k], _COLOURS[k % len(_COLOURS)]
            axis.plot(own[:, 0], own[:, 1], _MARKERS[k], color=colour, ms=6, mew=0, alpha=0.7, label=_plain(label))
        figure.legend(loc="outside right upper", fontsize=8)
    else:
        dots = axis.scatter(points[:, 0], points[:, 1], s=8, c=truth, cmap="viridis", vmin=0, vmax=len(labels) - 1)
        figure.colorbar(dots, ax=axis, label="number of the class")
    shares = " + ".join(f"{share:.1%}" for share in explained)
    axis.set(title=f"The head's input by PCA: {shares} of the variance", xlabel="component 1", ylabel="component 2")
    return figure


def _pca(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features [n, F] in the two directions of most variance [n, 2], and the share of it that each has [2]."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    largest = np.take_along_axis(vt, np.abs(vt).argmax(axis=1)[:, None], axis=1)[:, 0]
    points = u * s * np.where(largest < 0, -1.0, 1.0)  # a direction's sign is arbitrary: its largest part is positive
    shares = s**2 / max(float(s @ s), np.finfo(np.float64).tiny)
    lacking = max(0, 2 - len(s))
    return np.pad(points, ((0, 0), (0, lacking)))[:, :2], np.pad(shares, (0, lacking))[:2]


def _films_in_order(e: Evaluation) -> dict[str, NDArray[np.uint8]]:
    """Films [T, 2, S, S, 3] by their caption: the right ones by falling confidence, then the wrong ones."""
    chosen = np.array(sorted(e.films), np.int64)
    order = choose_films(e.probabilities[chosen], e.truth[chosen], len(chosen))
    return {_caption(e, chosen[k]): e.films[chosen[k]] for k in order}


def _caption(e: Evaluation, window: int) -> str:
    given, truth = int(e.probabilities[window].argmax()), int(e.truth[window])
    verdict, share = "right" if given == truth else "WRONG", e.probabilities[window, given]
    said = f"{verdict}: {_plain(e.labels[truth])} → {_plain(e.labels[given])}, {share:.0%}"
    return f"{said}   (window {window}, {_plain(e.clips[window])})"


def _motion(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """|x_t - x_{t-1}| [2, T - 1, S, S, 3] of a film [T, 2, S, S, 3], each row stretched to 0..255."""
    changes = np.abs(np.diff(film.astype(np.int16), axis=0)).swapaxes(0, 1)
    largest = changes.max(axis=(1, 2, 3, 4), keepdims=True).clip(1)
    return np.asarray((changes * (255 / largest)).round(), np.uint8)


def _strips(films: Mapping[str, NDArray[np.uint8]], note: str) -> Figure:
    """Films [2, T, S, S, 3] below each other, each a row of RGB images above a row of event images."""
    _, frames, size, _, _ = next(iter(films.values())).shape
    figure = empty_figure(1.5 * frames + 0.8, 3.4 * len(films) + 0.4)
    figure.suptitle(note, fontsize=10)
    for axis, (caption, film) in zip(figure.subplots(len(films), 1, squeeze=False)[:, 0], films.items(), strict=True):
        axis.imshow(_sheet(film), interpolation="nearest" if size < 100 else "antialiased")
        axis.set_title(caption, fontsize=9, loc="left")
        axis.set_yticks([size / 2, size * 1.5 + _GAP], ["RGB", "events"], fontsize=8, rotation=90, va="center")
        axis.tick_params(length=0)
        axis.set(xticks=[], frame_on=False)
    return figure


def _sheet(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Film [2, T, S, S, 3] as one image, with grey between its images."""
    framed = np.pad(film, ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=150)
    _, frames, _, width, _ = framed.shape
    return framed.transpose(0, 2, 1, 3, 4).reshape(-1, frames * width, 3)[:-_GAP, :-_GAP]


def _readme(
    e: Evaluation, scores: metrics.Scores, interval: tuple[float, float], title: str, pictures: Sequence[str]
) -> Iterator[str]:
    yield from (f"# {_cell(title)}", "", "| | |", "| --- | --- |")
    yield from (f"| {_cell(name)} | {_cell(note)} |" for name, note in e.notes.items())
    yield from ("", "| | |", "| --- | --- |")
    yield from (f"| {name} | {value} |" for name, value in _headline(e, scores, interval).items())
    for name in pictures:
        yield from ("", f"![{_PICTURES[name]}]({name})", "", f"*{_PICTURES[name]}.*")
    yield from ("", "| class | windows | recall | precision | F1 |", "| --- | ---: | ---: | ---: | ---: |")
    for label, row in scores.per_class.items():
        shares = " | ".join(_percent(row[name]) for name in ("recall", "precision", "f1"))
        yield f"| {_cell(label)} | {row['windows']:.0f} | {shares} |"


def _headline(e: Evaluation, scores: metrics.Scores, interval: tuple[float, float]) -> dict[str, str]:
    right = e.probabilities.argmax(axis=1) == e.truth
    sure = right[e.probabilities.max(axis=1) >= e.unsure_below]
    said = _percent(float(sure.mean())) if len(sure) else "-"
    return {
        "top-1": f"**{scores.top1:.1%}** ({metrics.told_interval(*interval)})",
        **({"top-5": f"{scores.top5:.1%}"} if len(e.labels) > metrics.TOP else {}),
        **_delay(e.delay_ms),
        "windows": f"{scores.windows:,} of {len(set(e.clips)):,} clips, {len(e.labels)} classes",
        f"unsure (confidence below {e.unsure_below:.2f})": f"{scores.unsure:.1%}; right among the others: {said}",
        "expected calibration error": f"{scores.ece:.3f}",
        "negative log likelihood": f"{scores.nll:.3f} nats",
    }


def _interval(e: Evaluation) -> tuple[float, float]:
    """Of top-1."""
    return metrics.bootstrap(e.probabilities.argmax(axis=1) == e.truth, np.unique(e.clips, return_inverse=True)[1])


def _delay(found: Mapping[str, float | int | None] | None) -> dict[str, str]:
    if found is None or not found["changes"]:
        return {}
    after = "" if found["median"] is None else f"; the median delay is {found['median']:.0f} ms"
    return {"label changes followed": f"{found['followed']} of {found['changes']}{after}"}


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.1%}"


def _cell(text: str) -> str:
    """As it is, where Markdown would read a sign or end a table's row."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


def _plain(text: str) -> str:
    """On one line, not too long, and not read as a formula."""
    return on_one_line(text, _LONGEST).replace("$", r"\$")


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure, inches. Raises NoMatplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise NoMatplotlib("pictures need matplotlib: pip install 'velora-rgbe[train]'") from error
    return Figure((width, height), layout="constrained")


def _write(path: Path, content: Figure | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(path) as part:
        if isinstance(content, str):
            part.write_text(content, encoding="utf-8")
        else:
            content.savefig(part, format="png", dpi=100)
