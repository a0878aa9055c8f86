"""Uploads of strangers to the running page: they stay in their folder, within bounds of size and memory."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import cv2
import lz4.frame
import numpy as np
import zstandard

from streams import EventPacket, RgbFrame, write_aedat4
from streams.aedat4_reader import Aedat4Reader
from tests.conftest import random_events
from tests.trust.faults.page_tools import HttpTab, answer, attempt, hanging, held
from tests.trust.faults.yard import Yard
from tests.trust.ledger import Ledger


def test_uploads_stay_in_their_folder_and_within_bounds(yard: Yard, small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row(
        "attack: uploads",
        "names that climb, sizes that lie, files that are none, more than there is room for",
        most_s=20,
    )
    tab, before, data = HttpTab(yard.page), yard.state(), small_recording.read_bytes()
    where = f"upload/{tab.token}"
    for name in (
        "../../outside/a.aedat4",
        str(yard.outside / "a.aedat4"),
        "..",
        "",
        "\0",
        "a\nb.aedat4",
        "x" * 9000,
        "%2e%2e%2fa",
    ):
        with attempt(row, f"name {name[:40]!r}"):
            assert tab.http.post(where, params={"name": name}, content=data).json()["done"]
            (folder,) = yard.page.uploads.folder.iterdir()
            (file,) = folder.iterdir()
            assert file.read_bytes() == data and len(file.name) < 256
    for name, content in (
        ("empty", b""),
        ("text", b"hello"),
        ("a video", b"\0\0\0\x18ftypmp42" + b"\0" * 5000),
        ("a script", b"#!/bin/sh\ntouch /tmp/x\n"),
        ("HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 5000),
        ("EVT3", b"% evt 3.0\n" + b"\xff" * 5000),
        ("a header alone", data[:14]),
        ("a claim of 4 GB", data[:14] + b"\xff\xff\xff\xff" + data[18:]),
    ):
        with attempt(row, name):
            told = tab.http.post(where, params={"name": "x.aedat4"}, content=content).json()
            assert not told["done"] and "\n" not in told["message"] and "/tmp" not in told["message"], told
            assert len(list(yard.page.uploads.folder.iterdir())) == 1  # what it watches
    for claim in ("99999999999999999999", "2000000000", "-1", "x"):
        claims = f"Content-Length: {claim}"
        with (
            attempt(row, claims),
            hanging(yard.page, f"POST /{where}?name=x HTTP/1.1", claims, "Connection: close") as link,
        ):
            reply = answer(link)
            assert b"400 " in reply[:20] or b"uploads are of" in reply or b'"done":false' in reply, reply
    with (
        attempt(row, "both lengths"),
        hanging(
            yard.page,
            f"POST /{where}?name=x HTTP/1.1",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            body=b"5\r\nhello\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ) as link,
    ):
        assert b"velora_viewers" not in answer(link)
    uploads = yard.page.uploads
    uploads._most, uploads._in_all = 4 * len(data), 6 * len(data)
    with attempt(row, "too large"):
        assert "at most" in tab.http.post(where, params={"name": "x"}, content=data * 5).json()["message"]
    tabs = [HttpTab(yard.page) for _ in range(8)]
    with attempt(row, "more than there is room for"):
        told = [
            each.http.post(f"upload/{each.token}", params={"name": "x.aedat4"}, content=data).json() for each in tabs
        ]
        assert [each["done"] for each in told] == [True] * 5 + [False] * 3 and "no room" in told[-1]["message"]
    for each in (*tabs, tab):
        each.close()
    assert yard.state() == before
    row.check()


def test_uploads_of_odd_shapes_take_little_memory(yard: Yard, tmp_path: Path, ledger: Ledger) -> None:
    row = ledger.row(
        "attack: odd shapes", "sensors that are huge, high or wide; snapshots; the longest stride", most_s=30
    )
    tab, before = HttpTab(yard.page), held().mb
    tab.sees()
    for width, height in ((4096, 4096), (4000, 2700), (1, 2000), (2000, 1), (1, 1)):
        path = tmp_path / f"{width}x{height}.aedat4"
        black = np.zeros((height, width, 3), np.uint8)
        with write_aedat4(path, (width, height), (width, height)) as writer:
            for k in range(3):
                start = 1_000_000 + 33_333 * k
                writer.write(
                    EventPacket(start, start + 33_333, random_events(3, start, start + 33_333, (width, height)))
                )
                writer.write(RgbFrame(start + 5_000, start + 15_000, black))
        with attempt(row, f"{width} x {height}"):
            told = tab.http.post(f"upload/{tab.token}", params={"name": "x.aedat4"}, content=path.read_bytes()).json()
            assert told["done"] == (width * height < 10_000_000), told
            assert told["done"] or "at most 10 megapixels" in told["message"]
        with attempt(row, f"a snapshot of {width} x {height}"):
            tab.sees()
            shown = np.frombuffer(tab.http.get(f"snapshot/{tab.token}").content, np.uint8)
            high, wide = cv2.imdecode(shown, cv2.IMREAD_COLOR).shape[:2]
            assert high <= 2500 and wide <= 6000
    with attempt(row, "the longest stride"):
        assert tab.act("stride", samples=1000)["done"]  # who reaches this page alone is an operator
        tab.sees(2)
    row.found = f"{held().mb - before:+.0f} MB (at most +400)"
    assert held().mb - before < 400
    tab.close()
    row.check()


def _uploaded(tab: HttpTab, path: Path) -> bool:
    reply = tab.http.post(f"upload/{tab.token}", params={"name": "x.aedat4"}, content=path.read_bytes())
    return bool(reply.json()["done"])


def test_what_leads_to_a_sought_place_of_large_pictures_takes_bounded_memory(
    yard: Yard, tmp_path: Path, ledger: Ledger
) -> None:
    row = ledger.row("attack: large pictures and a long stride", "a seek to the end, past 2 GB of pictures", most_s=60)
    size, path = (4000, 2400), tmp_path / "large.aedat4"
    black = np.zeros((size[1], size[0], 3), np.uint8)
    with write_aedat4(path, size, size) as writer:
        for k in range(36):
            start = 1_000_000 + 33_333 * k
            writer.write(EventPacket(start, start + 33_333, random_events(3, start, start + 33_333, size)))
            writer.write(RgbFrame(start + 5_000, start + 15_000, black))
    tab, before, worst = HttpTab(yard.page), held().mb, 0.0
    with attempt(row, "a seek"):
        assert tab.http.post(f"upload/{tab.token}", params={"name": "x.aedat4"}, content=path.read_bytes()).json()[
            "done"
        ]
        tab.sees()
        assert tab.act("pause")["done"] and tab.act("stride", samples=100)["done"]
        assert tab.act("seek", seconds=1.15)["done"]
        deadline = time.monotonic() + 60
        while (tab.look(0)["position_us"] or 0) < 2_100_000:
            worst = max(worst, held().mb - before)
            assert time.monotonic() < deadline
            time.sleep(0.05)
    row.found = f"{worst:+.0f} MB (at most +900)"
    assert worst < 900
    tab.close()
    row.check()


def test_a_header_that_makes_pictures_small_is_not_believed(yard: Yard, tmp_path: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: lying headers", "frames of 16 megapixels in a recording of 32 x 32")
    tab, path = HttpTab(yard.page), tmp_path / "lies.aedat4"
    with write_aedat4(path, (32, 32), (32, 32)) as writer:
        for k in range(20):
            start = 1_000_000 + 33_333 * k
            writer.write(EventPacket(start, start + 33_333, random_events(50, start, start + 33_333, (32, 32))))
            side = 4096 if k % 2 else 32
            writer.write(RgbFrame(start + 5_000, start + 15_000, np.zeros((side, side, 3), np.uint8)))
    with attempt(row, "an upload"):
        assert tab.http.post(f"upload/{tab.token}", params={"name": "x.aedat4"}, content=path.read_bytes()).json()[
            "done"
        ]
        tab.sees(2)
        assert tab.look(0)["lost"]["corrupt packets skipped"] > 0
    with attempt(row, "its pictures"):
        shown = np.frombuffer(tab.http.get(f"snapshot/{tab.token}").content, np.uint8)
        assert max(cv2.imdecode(shown, cv2.IMREAD_COLOR).shape[:2]) < 2_000
    tab.close()
    row.check()


def test_bombs_that_are_uploaded_take_little_memory(yard: Yard, small_recording: Path, ledger: Ledger) -> None:
    row = ledger.row("attack: bombs", "uploads of which a megabyte would become some gigabytes", most_s=20)
    tab, data = HttpTab(yard.page), small_recording.read_bytes()
    with Aedat4Reader(small_recording) as reader:
        begin, table = int(reader.index["offset"][0]), reader.header.table_position
    zeros = bytes(400_000_000)
    packets = [(lz4.frame.compress(zeros), "LZ4"), (zstandard.compress(zeros), "Zstandard")]
    tab.sees()
    before = held().mb
    worst = [before]
    for bomb, name in packets:
        head = struct.pack("<ii", 0, len(bomb))
        files = {
            "packets": data[: begin - 8] + (head + bomb) * 4,
            "a packet before others": data[: begin - 8] + head + bomb + data[begin - 8 :],
            "the table": data[:table] + bomb,
        }
        for where, content in files.items():
            with attempt(row, f"{name}, {where}"):
                told = tab.http.post(f"upload/{tab.token}", params={"name": "x.aedat4"}, content=content).json()
                assert told["done"] or "\n" not in told["message"]
                tab.act("restart")
                for _ in range(5):
                    time.sleep(0.05)
                    worst.append(held().mb)
                state = tab.look()
                assert "\n" not in state["message"]
    row.found = f"memory {max(worst) - before:+.0f} MB (at most +250)"
    assert max(worst) - before < 250, row.found
    with attempt(row, "the tab goes on"):
        assert tab.act("choose", name="square")["done"]
        tab.sees(2)
    tab.close()
    row.check()
