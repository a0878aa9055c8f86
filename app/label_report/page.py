"""The page: one file without anything from elsewhere. All names and labels in it were chosen by strangers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path

from app.export.results import Results
from app.label_colours import colour
from app.label_report.thumbnails import Thumbnail
from app.label_report.tracks import Amount, Doubt, Track, amounts_of, labelled_seconds

_HERE = Path(__file__).parent
_WIDE, _HIGH = 10_000, 20  # of a timeline
_SPOKEN = 5  # spans that are told in words
_LEAST = 5  # high, of a span without any confidence
_MANY_LABELS = 24  # more are folded away
_MANY_ROWS = 300  # more, and the folders are closed at first


@dataclass(frozen=True)
class Content:
    """What the page tells."""

    results: Results
    tracks: Sequence[Track]
    doubts: Sequence[Doubt]
    pictures: Mapping[Doubt, Thumbnail]
    failures: Sequence[tuple[str, str]]  # recording and reason


def page_of(content: Content) -> str:
    """The whole page as HTML."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    amounts = amounts_of(content.tracks)
    used = [amount.label for amount in amounts]
    body = [
        *_header(content, len(used)),
        *_amounts(amounts, _classes(used)),
        *_doubts(content, _classes(used)),
        *_timelines(content.tracks, _classes(used)),
        *_failures(content.failures),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(_title(content.results))}</title>",
            f"<style>{(_HERE / 'report.css').read_text(encoding='utf-8')}",
            *_colours(used, content.results.labels),
            "</style></head><body>",
            *body,
            '<div id="tip" hidden></div>',
            f"<script>{script}</script></body></html>",
            "",
        ]
    )


def seconds_as_text(seconds: float) -> str:
    """For people: 4.25 s, 1:23.4, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes:.0f}:{min(rest, 59.9):04.1f}"
    return f"{minutes // 60:,.0f} h {minutes % 60:02.0f} min"


def _title(results: Results) -> str:
    return f"Labels in {results.folder.absolute().name}"


def _classes(labels: Sequence[str]) -> dict[str, str]:
    """A class of CSS for each label."""
    return {label: f"c{number}" for number, label in enumerate(labels)}


def _colours(used: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    for label, name in _classes(used).items():
        hue, lightness = colour(label, labels)
        yield f".{name} {{ --c: hsl({hue} 62% {lightness:.0%}) }}"


# --- the parts --------------------------------------------------------------------------------------------------------


def _header(content: Content, labels: int) -> Iterator[str]:
    results, run = content.results, content.results.run
    model = run.model
    yield f"<header><h1>{escape(_title(results))}</h1>"
    named = ", ".join(dict.fromkeys(filter(None, (model.name, model.backbone))))
    on = ", ".join(filter(None, (model.device, model.dtype)))
    told = [f"{run.state} {_date(run.written)}", f"model {named}", model.digest, on]
    yield f"<p>{escape(' · '.join(part.strip() for part in told if part.strip()))}</p>"
    if model.random_parts:
        yield f"<p>Random weights ({escape(', '.join(model.random_parts))}): the labels mean nothing.</p>"
    yield f"<p><code>{escape(' '.join(run.command))}</code></p></header>"
    yield '<dl id="numbers">'
    for name, value, beside, bad in _numbers(content, labels):
        note = f" <small>{escape(beside)}</small>" if beside else ""
        yield f"<div{' class=bad' if bad else ''}><dt>{escape(name)}</dt><dd>{escape(value)}{note}</dd></div>"
    yield "</dl>"


def _numbers(content: Content, labels: int) -> Iterator[tuple[str, str, str, bool]]:
    """Name, value, what stands beside it, and whether that is bad."""
    notes = [track.labelled.note for track in content.tracks]
    recorded = sum(track.seconds for track in content.tracks)
    spans, corrected = sum(len(t.rows) for t in content.tracks), sum(t.labelled.corrected for t in content.tracks)
    failed = len(content.results.failed)
    yield "recordings", f"{len(notes):,}", f"{failed:,} failed" if failed else "", failed > 0
    yield "recorded", seconds_as_text(recorded), "", False
    share = labelled_seconds(content.tracks) / recorded if recorded else 0.0
    yield "labelled", f"{int(100 * share)}%", "of the time", False  # all of it, or less than 100
    yield "spans", f"{spans:,}", f"of {labels:,} labels", False
    yield "windows", f"{sum(note.windows for note in notes):,}", "", False
    yield "corrected", f"{corrected:,}", "by people", False
    speed = content.results.run.throughput.real_time_factor
    if speed > 0:
        yield "last run", f"{speed:.1f} ×", "real time", False


def _amounts(amounts: Sequence[Amount], classes: Mapping[str, str]) -> Iterator[str]:
    yield f"<h2>Labels <small>{len(amounts):,}, by time</small></h2>"
    if not amounts:
        yield "<p>No span was found: no window was sure for long enough.</p>"
        return
    most = amounts[0].seconds
    names = ("label", "", "time", "spans", "recordings", "sure")
    head = "".join(
        f'<span class="number">{name}</span>' if k > 1 else f"<span>{name}</span>" for k, name in enumerate(names)
    )
    yield f'<div class="amounts"><div class="head">{head}</div>'
    yield from (_amount(amount, most, classes) for amount in amounts[:_MANY_LABELS])
    yield "</div>"
    if rest := amounts[_MANY_LABELS:]:
        yield f'<details class="more"><summary>{len(rest):,} more</summary><div class="amounts">'
        yield from (_amount(amount, most, classes) for amount in rest)
        yield "</div></details>"


def _amount(amount: Amount, most: float, classes: Mapping[str, str]) -> str:
    label, sure = escape(amount.label), "" if amount.confidence is None else f"{amount.confidence:.0%}"
    return (
        f'<div class="{classes[amount.label]}"><span class="name" title="{label}"><i class="chip"></i>{label}</span>'
        f'<span class="bar"><i style="width:{100 * amount.seconds / most:.2f}%"></i></span>'
        f'<span class="number">{seconds_as_text(amount.seconds)}</span><span class="number">{amount.spans:,}</span>'
        f'<span class="number">{amount.recordings:,}</span><span class="number faint">{sure}</span></div>'
    )


def _doubts(content: Content, classes: Mapping[str, str]) -> Iterator[str]:
    if not content.doubts:
        return
    rows = {track.name: number for number, track in enumerate(content.tracks)}
    yield f"<h2>Least certain <small>{len(content.doubts):,} spans to look at first</small></h2><div class=doubts>"
    for doubt in content.doubts:
        yield _doubt(doubt, content.pictures.get(doubt, Thumbnail(failure="not looked at")), rows, classes)
    yield "</div>"


def _doubt(doubt: Doubt, picture: Thumbnail, rows: Mapping[str, int], classes: Mapping[str, str]) -> str:
    row, track = doubt.row, doubt.track
    label, name = escape(row.label), escape(track.name)
    start_s, end_s = ((moment - track.start_us) / 1e6 for moment in track.clip(row))
    if picture.jpeg:
        width, height = picture.size
        data = base64.b64encode(picture.jpeg).decode()
        shown = f'<img width="{width}" height="{height}" style="--shape:{width / height:.3f}" loading="lazy" '
        shown += f'alt="what was seen: {label}" src="data:image/jpeg;base64,{data}">'
    else:
        shown = f'<div class="none">{escape(picture.failure)}</div>'
    return (
        f'<figure>{shown}<figcaption><b class="{classes[row.label]}"><i class="chip"></i><span title="{label}">{label}'
        f"</span><em>{row.confidence:.0%}</em></b>"
        f'<a href="#r{rows[track.name]}" title="{name}"><span><bdi>{name}</bdi></span>'
        f"<span>{seconds_as_text(start_s)} – {seconds_as_text(end_s)}</span></a></figcaption></figure>"
    )


def _timelines(tracks: Sequence[Track], classes: Mapping[str, str]) -> Iterator[str]:
    yield f"<h2>Timelines <small>{len(tracks):,} recordings, each on its own time; "
    yield "spans are as high as they are sure</small></h2>"
    asked = "find recordings or labels"
    yield f'<div id="find"><input type="search" placeholder="{asked}" aria-label="{asked}">'
    yield '<span id="count" class="faint" role="status"></span></div>'
    opened = " open" if len(tracks) <= _MANY_ROWS else ""
    numbered = sorted(enumerate(tracks), key=lambda pair: (pair[1].folder, pair[1].name))
    for folder, group in groupby(numbered, key=lambda pair: pair[1].folder):
        own = list(group)
        told = f"{len(own):,} · {seconds_as_text(sum(track.seconds for _, track in own))}"
        yield f'<details class="group"{opened}><summary>{escape(folder or "(top)")}<small>{told}</small></summary>'
        yield from (_row(number, track, classes) for number, track in own)
        yield "</details>"


def _row(number: int, track: Track, classes: Mapping[str, str]) -> str:
    own, rows = track.labelled, track.rows
    labels = list(dict.fromkeys(row.label for row in rows))
    paths = "".join(
        f'<path class="{classes[label]}" data-label="{escape(label)}" d="{_path(track, label)}"/>' for label in labels
    )
    marks = [("corrected", "somebody has corrected its labels")] if own.corrected else []
    marks += [("remarks", "; ".join(own.note.remarks))] if own.note.remarks else []
    marked = "".join(f'<span class="mark" title="{escape(told)}">{name}</span>' for name, told in marks)
    name = escape(track.name)
    find = escape(" ".join([track.name, *labels, *(name for name, _ in marks)]).lower())
    return (
        f'<div class="row" id="r{number}" data-find="{find}">'
        f'<span class="name" title="{name}">{escape(track.name.rpartition("/")[2])}{marked}</span>'
        f'<svg role="img" aria-label="{escape(_spoken(track))}" '
        f'viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none" data-seconds="{track.seconds:.6f}">'
        f"{paths}</svg>"
        f'<span class="long">{seconds_as_text(track.seconds)}</span></div>'
    )


def _spoken(track: Track) -> str:
    """The spans in words: for who cannot see them, the first ones."""
    spans = [
        f"{row.label} from {start / 1e6:.1f} to {end / 1e6:.1f} s"
        for row in track.rows[:_SPOKEN]
        for start, end in [[moment - track.start_us for moment in track.clip(row)]]
    ]
    more = [f"and {len(track.rows) - _SPOKEN:,} more"] if len(track.rows) > _SPOKEN else []
    return ", ".join([*spans, *more]) or "no labels"


def _path(track: Track, label: str) -> str:
    """The spans of a label as bars that stand on the ground."""
    scale = _WIDE / (track.end_us - track.start_us)
    parts = []
    for row in track.rows:
        if row.label == label:
            start, end = (round((moment - track.start_us) * scale) for moment in track.clip(row))
            sure = 1.0 if row.confidence is None else min(max(row.confidence, 0.0), 1.0)
            high = _LEAST + (_HIGH - _LEAST) * sure
            parts.append(f"M{start} {_HIGH - high:.1f}h{max(1, end - start)}v{high:.1f}h-{max(1, end - start)}z")
    return "".join(parts)


def _failures(failures: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not failures:
        return
    yield f"<h2>Not labelled, or not readable <small>{len(failures):,}</small></h2><table class=failures>"
    yield from (f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td></tr>" for name, reason in failures)
    yield "</table>"


def _date(told: str) -> str:
    try:
        return f"{datetime.fromisoformat(told):%d %B %Y, %H:%M %Z}"
    except ValueError:
        return ""
