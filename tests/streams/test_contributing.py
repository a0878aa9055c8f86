"""What CONTRIBUTING.md shows of a new kind of source works as it stands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from app.cli import main
from streams import RecordingError, open_source, synchronize
from streams.kinds import KINDS
from tests.conftest import random_events


@pytest.fixture(autouse=True)
def csv_source(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None and len(found[1].splitlines()) < 55
    module = ModuleType("streams.csv_source")
    exec(compile(found[1], "CONTRIBUTING.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "streams.csv_source", module)
    monkeypatch.setattr("streams.source.KINDS", ("streams.csv_source:CsvSource", *KINDS))


def test_a_file_of_the_new_kind_opens_replays_and_is_explained(tmp_path: Path, capsys) -> None:
    events = random_events(3_000, 0, 1_500_000)
    lines = [f"{e['t']},{e['x']},{e['y']},{int(e['p'])}" for e in events]
    path = tmp_path / "events.txt"
    path.write_text("\n".join(["t_us,x,y,polarity", *lines]))
    with open_source(path, size=(64, 48)) as source:
        samples = list(synchronize(source))
    assert sum(len(sample.events) for sample in samples) == 3_000
    assert np.array_equal(samples[0].events, events[events["t"] < samples[0].t_end_us])
    assert main(["info", str(path)]) == 0 and main(["replay", str(path), "--size", "64x48", "--speed", "max"]) == 0
    assert "3,000 events" in capsys.readouterr().out


def test_its_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "events.txt"
    path.write_text("t_us,x,y,polarity\n1,2,three,1\n")
    with pytest.raises(RecordingError, match="events.txt: .*each line is t_us,x,y,polarity"):
        open_source(path)
