"""`velora export`: what `velora label` found, for annotation tools, with a video of each recording.

    velora export labels/ --to label-studio --out for-label-studio/

Corrections are exported, since spans are read as they are now. Videos that are there are not rendered anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from app.export.elan import Elan
from app.export.fiftyone import FiftyOne
from app.export.items import Export, Item, Tool, one_line, spans_in
from app.export.label_studio import LabelStudio
from app.export.names import key_of
from app.export.places import Places
from app.export.results import Labelled, Results, read_results, troubles
from app.export.table import Table
from app.feed import stopping
from app.film.drawing import check_panes
from app.film.encoder import check_av
from app.film.film import Clock, Film
from app.film.make import Job, Look, clock_of
from app.film.studio import make_films, there_already
from app.labelling.inputs import check_no_way_out
from app.output import let_go_of_stdout
from streams import StreamError
from streams.files import replaced_when_whole
from streams.text import printable, storable

README = "README.txt"
_TOOLS: dict[str, type[Tool]] = {"fiftyone": FiftyOne, "label-studio": LabelStudio, "elan": Elan, "csv": Table}
_NO_VIDEO = "\nVideos were left out (--no-video). Export again without it: labels stay the same, videos are added.\n"
_MOST_TOLD = 20  # lines of one kind on stderr


def export(arguments: argparse.Namespace) -> int:
    """Write an export. Raises ValueError and OSError for what concerns all of it."""
    try:
        return _export(arguments)
    except BrokenPipeError:
        let_go_of_stdout()
        raise ValueError("it was stopped: nobody reads its output any more; the same command goes on") from None


def _export(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    tool = _TOOLS[arguments.to]()
    if not arguments.no_video:
        check_av()
    if arguments.within:
        check_no_way_out(arguments.folder, arguments.within)
        check_no_way_out(out, arguments.within)
    results = read_results(arguments.folder, strict=True)
    places = Places(arguments.recordings, arguments.within)
    _claim(out, arguments.folder, tool)
    look = Look(
        panes=None if arguments.panes is None else check_panes(arguments.panes),
        fps=arguments.fps,
        feed=results.feed,
    )
    work = _Work(results, places, look, out, tool)
    asked = threading.Event()
    with stopping(asked.set) as interrupt:
        clocks = (work.clocks if arguments.no_video else work.films)(asked.is_set)
        items = list(_told(work, clocks, arguments.json))
    if interrupt.asked:
        print(f"{out}: interrupted; videos that are whole stay, labels are not written yet", file=sys.stderr)
        _tell_end(arguments.json, "interrupted", work)
        return 130
    whole = Export(items, _labels(results), _model(results), not arguments.no_video)
    tool.write(out, whole)
    _write_readme(out, tool, tool.readme(out, whole) + ("" if whole.with_video else _NO_VIDEO))
    _tell_end(arguments.json, "finished", work)
    if results.otherwise and not arguments.no_video:
        told = f"{_counted(results.otherwise, 'recording')} labelled with other settings than those of the last run"
        _say([f"{told}, as which all videos are drawn"])
    return _close(out, work, whole)


def _tell_end(as_json: bool, state: str, work: _Work) -> None:
    if as_json:
        print(json.dumps({"event": "end", "state": state, "failed": len(work.failures)}), flush=True)


def _told(work: _Work, clocks: Iterator[tuple[Labelled, Job, Clock]], as_json: bool) -> Iterator[Item]:
    """What is exported of each recording; how far it is, as JSON lines if they are wanted."""
    began = time.monotonic()

    def tell(event: str, **facts: object) -> None:
        if as_json:
            print(json.dumps({"event": event, **facts}), flush=True)

    tell("begin", recordings=work.recordings)
    for number, (own, job, clock) in enumerate(clocks, 1):
        yield work.item(own, job, clock)
        share, seconds = number / work.recordings, time.monotonic() - began
        tell("recording", recording=own.name, status="done")
        tell("progress", share=round(share, 4), left_s=round(seconds / share - seconds, 1))


class _Work:
    """One export: the recordings that can be exported, with their clocks; and what could not be."""

    def __init__(self, results: Results, places: Places, look: Look, out: Path, tool: Tool) -> None:
        self._results, self._look = results, look
        self._videos = out / tool.videos
        self.failures: list[str] = []
        self.made = self.there = 0
        self._jobs: list[tuple[Labelled, Job]] = []
        for own in results.labelled:
            if own.trouble and not own.rows:
                continue  # told of already
            recording = places.find(own.note)
            if recording is None:
                self.failures.append(places.missing(own.note))
            else:
                video = self._videos / f"{key_of(own.note.recording)}.mp4"
                self._jobs.append((own, Job(recording, own.name, video)))

    @property
    def recordings(self) -> int:
        """How many there are to export."""
        return len(self._jobs)

    def films(self, stopped: Callable[[], bool]) -> Iterator[tuple[Labelled, Job, Clock]]:
        """Make the videos that are not there."""
        owners = {job.video: own for own, job in self._jobs}
        jobs = [job for _, job in self._jobs]
        for outcome in make_films(jobs, self._look, stopped=stopped, ours=True):
            if outcome.film is None:
                self.failures.append(outcome.failure)
                continue
            self.made, self.there = self.made + outcome.made, self.there + (not outcome.made)
            self._tell_remarks(outcome.film)
            yield owners[outcome.job.video], outcome.job, outcome.film.clock

    def clocks(self, stopped: Callable[[], bool]) -> Iterator[tuple[Labelled, Job, Clock]]:
        """The clocks of videos that are there, or would be."""
        console = Console(stderr=True)
        for own, job in track(self._jobs, "looking", console=console, transient=True, disable=not console.is_terminal):
            if stopped():
                return
            try:
                film = there_already(job, self._look)
                self.there += film is not None
                yield own, job, film.clock if film else clock_of(job.recording, self._look)
            except (StreamError, ValueError, OSError) as error:
                self.failures.append(str(error))

    def item(self, own: Labelled, job: Job, clock: Clock) -> Item:
        """What is exported of a recording."""
        spans, cut, outside = spans_in(own.rows, clock)
        source = storable(str(job.recording))
        return Item(own.name, job.video.stem, source, clock, tuple(spans), cut, outside)

    def _tell_remarks(self, film: Film) -> None:
        early = [remark for remark in film.remarks if "ends" in remark]
        if early:
            _say([f"{film.recording}: {'; '.join(early)}"])

    def told(self) -> list[str]:
        """All that is missing from the export."""
        return [*troubles(self._results), *self.failures]


def _claim(out: Path, folder: Path, tool: Tool) -> None:
    """Make the output folder this tool's. Raises ValueError where something else is in it."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names a folder")
    if out.is_dir() and out.samefile(folder):
        raise ValueError(f"{out} holds the labels: let --out name another folder")
    readme = out / README
    others = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if others and not (readme.is_file() and _heading(readme) == _title(tool)):
        raise ValueError(f"{out} holds something else than an export for {tool.title}: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not readme.exists():
        _write_readme(out, tool, "Not finished yet.\n")
    (out / tool.videos).mkdir(exist_ok=True)


def _heading(readme: Path) -> str:
    with readme.open(encoding="utf-8", errors="replace") as file:
        return file.readline().strip()


def _title(tool: Tool) -> str:
    return f"velora export: {tool.title}"


def _write_readme(out: Path, tool: Tool, text: str) -> None:
    with replaced_when_whole(out / README) as part:
        part.write_text(f"{_title(tool)}\n\n{text}", encoding="utf-8", newline="\n")


def _labels(results: Results) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(one_line, results.labels)))


def _model(results: Results) -> str:
    """What said the labels, for people."""
    return " ".join(filter(None, ("velora", results.run.model.name, results.run.model.digest)))


def _close(out: Path, work: _Work, whole: Export) -> int:
    """The summary on stderr, and the exit code."""
    spans = sum(len(item.spans) for item in whole.items)
    cut, outside = sum(item.cut for item in whole.items), sum(item.outside for item in whole.items)
    videos = f"; {_counted(work.made, 'video')} rendered, {work.there:,} there before" if whole.with_video else ""
    told = f"{_counted(len(whole.items), 'recording')}, {_counted(spans, 'span')}{videos}"
    lines = [f"{out}: {told}; {README} says how to import them"]
    if cut:
        lines.append(f"spans cut, since they reach beyond their recordings: {cut:,}")
    if outside:
        lines.append(f"spans left out, since they are outside of their recordings: {outside:,}")
    missed = work.told()
    if missed:
        lines.append(f"{len(missed):,} left out:")
    _say([*lines, *(f"  {line}" for line in missed[:_MOST_TOLD])])
    if len(missed) > _MOST_TOLD:
        _say([f"  and {len(missed) - _MOST_TOLD:,} more"])
    return 1 if work.failures else 0


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(printable(line), file=sys.stderr)
