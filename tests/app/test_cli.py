"""The command line end to end: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.page import free_port
from streams import EventPacket, open_source, synchronize, write_aedat4
from streams.aedat4_reader import Aedat4Reader
from streams.endings import ENDINGS
from tests.conftest import random_events


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_replay_prints_one_json_object_a_label(small_recording: Path, capsys) -> None:
    assert main(["replay", str(small_recording), "--json", "--speed", "max", "--stride", "2"]) == 0
    out, err = capsys.readouterr()
    found = lines(out)
    with open_source(small_recording) as source:
        samples = list(synchronize(source))
    assert [(p["t_start_us"], p["t_end_us"]) for p in found] == [
        (first.t_start_us, last.t_end_us) for first, last in zip(samples, samples[14:], strict=False)
    ]
    for prediction in found:
        keys = {"t_start_us", "t_end_us", "label", "confidence", "topk", "latency_ms", "unsure", "model"}
        assert set(prediction) == keys
        assert prediction["topk"][0] == [prediction["label"], prediction["confidence"]]
        assert len(prediction["topk"]) == 5
        probabilities = [p for _, p in prediction["topk"]]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < sum(probabilities) <= 1 + 1e-4
        assert set(prediction["latency_ms"]) == {"decode", "render", "encode", "fuse"}
        assert prediction["model"] == "demo"
    assert "60 samples, 46 labels" in err


def test_replay_says_in_plain_sight_that_weights_are_random(small_recording: Path, capsys) -> None:
    main(["replay", str(small_recording), "--speed", "max", "--model", "ViT-B-32-quickgelu", "--random-weights"])
    out, err = capsys.readouterr()
    assert "Random weights" in out and "Random weights" in err


def test_a_real_recording_of_13_frames_gives_6_labels(real_recording, capsys) -> None:
    path = real_recording("cuke_davis346")
    assert main(["replay", str(path), "--json", "--speed", "max", "--stride", "1"]) == 0
    found = lines(capsys.readouterr().out)
    assert len(found) == 6
    with open_source(path) as source:
        ends = [sample.t_end_us for sample in synchronize(source)]
    assert [p["t_end_us"] for p in found] == ends[7:]


@pytest.mark.parametrize("hop, labels", [(1, 53), (5, 11), (100, 1)])
def test_hop_is_the_number_of_samples_from_label_to_label(small_recording: Path, capsys, hop: int, labels: int) -> None:
    main(["replay", str(small_recording), "--json", "--speed", "max", "--stride", "1", "--hop", str(hop)])
    assert len(lines(capsys.readouterr().out)) == labels


def test_without_json_a_table_and_a_closing_summary_are_shown(small_recording: Path, capsys) -> None:
    assert main(["replay", str(small_recording), "--speed", "max"]) == 0
    out, err = capsys.readouterr()
    assert "confidence" in out and "square.aedat4" in out
    for part in ("60 samples", "events/s", "frames/s", "p50", "p95"):
        assert part in err


def test_too_few_samples_for_a_window_say_which_stride_would_do(small_recording: Path, capsys) -> None:
    assert main(["replay", str(small_recording), "--json", "--speed", "max", "--stride", "9"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "needs 64 samples" in err and "--stride 8" in err


def test_a_cut_recording_is_replayed_with_a_warning_and_fails_only_when_strict(
    small_recording: Path, tmp_path: Path, capsys
) -> None:
    with Aedat4Reader(small_recording) as reader:
        cut = int(reader.index["offset"][80]) + 5
    path = tmp_path / "cut.aedat4"
    path.write_bytes(small_recording.read_bytes()[:cut])
    arguments = ["replay", str(path), "--json", "--speed", "max", "--stride", "1"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert len(lines(out)) > 20 and "bytes missing at the end" in err
    assert main([*arguments, "--strict"]) == 1


@pytest.fixture(scope="module")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    empty, text, old, nothing = (folder / name for name in ("empty", "notes.txt", "old.aedat4", "nothing.aedat4"))
    empty.write_bytes(b"")
    text.write_text("what a recording should have been")
    old.write_bytes(b"#!AER-DAT3.1\r\n")
    with write_aedat4(nothing, (64, 48), (64, 48)):
        pass
    return {
        "missing": folder / "no such.aedat4",
        "empty": empty,
        "not a recording": text,
        "another version": old,
        "a folder": folder,
        "nothing inside": nothing,
    }


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "not a recording", "another version", "a folder", "nothing inside"]
)
def test_bad_input_ends_in_one_line_that_names_the_file(bad_inputs, capsys, kind: str) -> None:
    path = bad_inputs[kind]
    assert main(["replay", str(path), "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert err.startswith("velora: ") and str(path) in err


def test_an_unreadable_file_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.aedat4").touch()
    monkeypatch.setattr("pathlib.Path.open", refuse)  # root may read everything
    assert main(["info", str(tmp_path / "secret.aedat4")]) == 1
    assert "secret.aedat4: cannot be read (Permission denied)" in capsys.readouterr().err


def test_a_traceback_is_shown_only_on_request(bad_inputs) -> None:
    with pytest.raises(Exception, match="no such file"):
        main(["--debug", "info", str(bad_inputs["missing"])])


@pytest.mark.parametrize("arguments", ["", "replay", "replay a --hop 0", "replay a --speed fast", "demo --port 0"])
def test_wrong_usage_exits_with_2(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2


def test_an_interrupted_replay_exits_with_130_after_its_summary(small_recording: Path, capsys, monkeypatch) -> None:
    from app.replay import Tally

    def interrupt(self: Tally, sample) -> None:
        tally_sample(self, sample)
        if sample.index == 20:
            signal.raise_signal(signal.SIGINT)

    tally_sample = Tally.on_sample
    monkeypatch.setattr(Tally, "on_sample", interrupt)
    assert main(["replay", str(small_recording), "--json", "--speed", "0.5", "--stride", "1"]) == 130
    told = re.search(r"(\d+) samples, (\d+) labels", capsys.readouterr().err)
    assert told is not None and 20 <= int(told[1]) < 25 and int(told[1]) - int(told[2]) == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("options", [["--json"], []], ids=["lines", "a table"])
def test_a_reader_that_leaves_ends_replay_quietly(options: list[str], small_recording: Path) -> None:
    velora = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"]
    arguments = ["replay", str(small_recording), *options, "--speed", "max", "--stride", "1"]
    process = subprocess.Popen([*velora, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    assert not options or process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert "Traceback" not in process.stderr.read()


def test_doctor_names_what_is_there_and_the_fix_for_what_is_not(capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {line["what"]: line for line in lines(capsys.readouterr().out)}
    assert "torch" in found["libraries"]["found"]
    assert "cards" in found["bundled recordings"]["found"]
    assert found["processor"]["state"] == "ok"
    missing = [line for name, line in found.items() if name.startswith("weights of") and line["state"] != "ok"]
    assert all(line["fix"] for line in missing)


def test_doctor_goes_on_where_a_library_is_broken(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[object]:
        raise OSError("libcudnn.so.9: cannot open shared object file")
        yield

    monkeypatch.setattr("app.doctor._compute", broken)
    assert main(["doctor", "--json"]) == 1
    found = {line["what"]: line for line in lines(capsys.readouterr().out)}
    assert found["broken"]["state"] == "bad" and "libcudnn" in found["broken"]["found"]
    assert "cards" in found["bundled recordings"]["found"] and "pictures of reports" in found


@pytest.mark.timing
def test_help_is_instant() -> None:
    began = time.perf_counter()
    code = "from app.cli import main; main(['--help'])"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert time.perf_counter() - began < 1.5


def test_the_bundled_recording_holds_what_its_page_says() -> None:
    from recordings import bundled

    path = bundled()["cards"]
    assert path.stat().st_size <= 10_000_000
    with open_source(path) as source:
        samples = list(synchronize(source))
        assert not source.counts
    assert samples[-1].t_end_us - samples[0].t_start_us >= 12_000_000
    first_event = next(i for i, s in enumerate(samples) if len(s.events))
    assert all(s.has_rgb and s.has_events for s in samples[first_event:-1]) and first_event < 30
    assert np.mean([s.rgb.std(axis=2).mean() for s in samples[::30]]) > 1  # in colour
    with open(path.with_suffix(".labels.csv"), newline="") as file:
        labels = {row["label"] for row in csv.DictReader(file)}
    assert "no card" in labels and len(labels) >= 4


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_stops_the_demo_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    heed = f"import signal; signal.signal({int(number)}, signal.SIG_DFL)"  # it may be ignored in a background job
    port = free_port("127.0.0.1", None)
    code = f"{heed}; import sys; from app.cli import main; sys.exit(main(['demo', '--port', '{port}']))"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stderr is not None
        assert any("the page is at" in line for line in demo.stderr)
        demo.send_signal(number)
        assert demo.wait(timeout=20) == 130
        assert "Traceback" not in demo.stderr.read()
    assert list(tmp_path.glob("velora-*")) == []


def test_names_that_look_like_markup_are_shown_as_they_are(small_recording: Path, tmp_path: Path, capsys) -> None:
    odd = tmp_path / "[red]x[" / "b] :smile:.aedat4"
    odd.parent.mkdir()
    odd.write_bytes(small_recording.read_bytes())
    assert main(["replay", str(odd), "--speed", "max", "--hop", "50"]) == 0
    assert ":smile:" in capsys.readouterr().out


def test_a_recording_of_corrupt_packets_alone_ends_in_one_line(tmp_path: Path, capsys) -> None:
    path = tmp_path / "corrupt.aedat4"
    with write_aedat4(path, (64, 48), compression="none") as writer:
        writer.write(EventPacket(0, 100, random_events(10, 0, 100)))
    with Aedat4Reader(path) as reader:
        identifier_at = int(reader.index["offset"][0]) + 8
    data = bytearray(path.read_bytes())
    data[identifier_at] = 0
    path.write_bytes(data)
    assert main(["replay", str(path), "--json"]) == 1
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == "" and str(path) in last and "corrupt packets skipped: 1" in last


def test_output_that_cannot_be_written_is_one_line(small_recording: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    code = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-c", code, "info", str(small_recording), "--json"]
        ended = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    told = "velora: standard output: No space left on device; make room, or choose another place\n"
    assert (ended.returncode, ended.stderr) == (1, told)
