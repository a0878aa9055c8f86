"""Paths, addresses and names that strangers give the running page: nothing outside of what is allowed is touched."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import lz4.frame
import pytest
import zstandard

from app.access import Access
from app.labelling.notes import BOOKS
from app.page import Page
from app.school import School
from streams.aedat4_reader import Aedat4Reader
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer
from tests.app.label_outputs import SPANS, write_outputs
from tests.trust.faults.page_tools import HttpTab, answer, attempt, hanging, held
from tests.trust.ledger import Ledger

SECRET = "the secret of the owner"


@dataclass
class Yard:
    """A page that may open what is `inside`, and what lies outside of that, which nobody may touch."""

    page: Page
    inside: Path
    outside: Path
    listener: socket.socket  # that nobody may call

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def state(self) -> dict[str, bytes]:
        """Of all that is outside."""
        files = [path for path in self.outside.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in files}

    def called(self) -> bool:
        try:
            self.listener.accept()[0].close()
        except TimeoutError:
            return False
        return True


@pytest.fixture
def yard(small_recording: Path, tmp_path: Path) -> Iterator[Yard]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside, outside):
        (folder / "deep").mkdir(parents=True)
        shutil.copy(small_recording, folder / "a.aedat4")
        shutil.copy(small_recording, folder / "deep" / "b.aedat4")
    (outside / "secret.txt").write_text(SECRET)
    (outside / "labels.csv").write_text(f"recording,start_us,end_us,label\na.aedat4,1010000,1200000,{SECRET}\n")
    (inside / "out").symlink_to(outside)
    (inside / "out.aedat4").symlink_to(outside / "a.aedat4")
    (inside / "velora-labels").symlink_to(outside)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        access = Access(folders=(inside.resolve(),))
        school = School(tmp_path / "school")
        options: dict[str, Any] = {"access": access, "school": school, "models": lambda: {"fake": "demo"}}
        with Page(FakeRecognizer, {"square": small_recording}, **options) as page:  # type: ignore[arg-type]
            yield Yard(page, inside, outside, listener)


def paths_out(yard: Yard) -> list[str]:
    """Ways to say where what is outside lies."""
    outside, up = yard.outside / "a.aedat4", "../outside/a.aedat4"
    plain = [str(outside), f"{yard.inside}/{up}", f"{yard.inside}/deep/../../outside/a.aedat4", f"//{outside}", up]
    plain += [f"{yard.inside}/out/a.aedat4", f"{yard.inside}/out.aedat4", f"{yard.inside}/./out/../out/deep/b.aedat4"]
    odd = [
        f" {outside} ",
        f"{outside}\0",
        f"{yard.inside}\0/../outside/a.aedat4",
        "~root/a.aedat4",
        "~/a.aedat4",
        "~nobody-at-all/x",
    ]
    odd += [
        quote(str(outside), safe=""),
        str(outside).replace("/", "\\"),
        str(outside).replace("/", "／"),
        f"{outside}/",
        "/",
        "",
    ]
    odd += [
        "\\\\127.0.0.1\\share\\a.aedat4",
        "//127.0.0.1/share/a.aedat4",
        "/proc/self/environ",
        "/dev/zero",
        "/dev/stdin",
    ]
    odd += [
        "a" * 5000,
        "/" + "a/" * 3000,
        f"file://{outside}",
        f"file:{outside}",
        f"FILE://{outside}",
        f"hardvs:{yard.outside}",
    ]
    return plain + odd


def addresses(yard: Yard) -> list[str]:
    """What would open cameras, or talk to others."""
    host = f"127.0.0.1:{yard.port}"
    schemes = (
        "tcp://{}",
        "tcp:{}",
        "TCP://{}",
        "http://{}/a.aedat4",
        "https://{}/",
        "ftp://{}/a",
        "s3://{}/a",
        "ws://{}/",
    )
    return [scheme.format(host) for scheme in schemes] + [
        "webcam:0",
        "webcam:/etc/passwd",
        "dv:",
        "dv:0007",
        "pokerevent:x",
        "gs://x/y",
    ]


def test_paths_lead_nowhere_else(yard: Yard, ledger: Ledger) -> None:
    row = ledger.row(
        "attack: paths",
        "absolute, .., links, encodings, devices, UNC, file: URLs, in every control that opens",
        most_s=10,
    )
    tab, before = HttpTab(yard.page), yard.state()
    for path in paths_out(yard):
        controls: dict[str, dict[str, Any]] = {
            "open": {"address": path},
            "label_folder": {"folder": path},
            "export_folder": {"out": path, "to": "csv"},
            "review": {"out": path, "recording": "a.aedat4", "start_us": 0},
            "choose": {"name": path},
            "use_model": {"name": path},
        }
        controls["label_folder "] = {"folder": str(yard.inside), "out": path}
        for name, arguments in controls.items():
            with attempt(row, f"{name}{path[:80]!r}"):
                told = tab.act(name.strip(), **arguments)
                allowed = name == "label_folder " and not path.strip()  # no folder said: beside the recordings
                assert not told["done"] and SECRET not in told["message"], told
                assert "\n" not in told["message"] and len(told["message"]) <= 300 and (allowed or told["message"])
        with attempt(row, f"folder {path[:80]!r}"):
            reply = tab.http.get(f"folder/{tab.token}", params={"out": path})
            assert SECRET not in reply.text and ("message" in reply.json() or not path.strip())
    with attempt(row, "the tab goes on"):
        tab.sees(2)
        assert tab.look()["recording"] == "square.aedat4" and tab.look()["batch"] is None
    with attempt(row, "what is inside"):
        assert tab.act("open", address=str(yard.inside / "deep" / ".." / "a.aedat4"))["done"]
    tab.close()
    assert yard.state() == before, "something outside has changed"
    row.check()


def test_addresses_are_not_opened(yard: Yard, ledger: Ledger) -> None:
    row = ledger.row("attack: addresses", "network feeds, cameras, URLs, where --allow-uri was not given", most_s=10)
    tab = HttpTab(yard.page)
    for address in addresses(yard):
        for name, arguments in (
            ("open", {"address": address}),
            ("label_folder", {"folder": address}),
            ("label_folder", {"folder": str(yard.inside / "deep"), "out": address}),
            ("choose", {"name": address}),
        ):
            with attempt(row, f"{name} {address}"):
                told = tab.act(name, **arguments)
                assert not told["done"] and told["message"] and "\n" not in told["message"], told
    with attempt(row, "nobody was called"):
        assert not yard.called() and tab.look()["recording"] == "square.aedat4"
    tab.close()
    row.check()


def test_a_labelled_folder_shows_and_opens_nothing_outside(yard: Yard, ledger: Ledger) -> None:
    """Its notes, which somebody else may have written, say where recordings and labels lie."""
    row, tab = (
        ledger.row("attack: notes of a labelled folder", "that name recordings and labels elsewhere"),
        HttpTab(yard.page),
    )
    before = yard.state()
    elsewhere = [str(yard.outside / name) for name in ("a.aedat4", "labels.csv", "secret.txt")]
    elsewhere += [
        "../../../outside/labels.csv",
        "../../outside/labels.csv",
        f"{yard.inside}/out/labels.csv",
        "a\0b",
        "",
    ]
    for field in ("source", "labels_file", "windows_file", "recording"):
        for path in elsewhere:
            with attempt(row, f"{field} {path!r}"):
                out = write_outputs(yard.inside / f"labelled {row.cases}", {"a.aedat4": SPANS})
                (note,) = (out / BOOKS / "notes").rglob("*.json")
                told = json.loads(note.read_text())
                note.write_text(json.dumps({**told, field: path}))
                reply = tab.http.get(f"folder/{tab.token}", params={"out": str(out)})
                assert reply.status_code == 200 and SECRET not in reply.text
                for name in ("a.aedat4", path):
                    reviewed = tab.act("review", out=str(out), recording=name, start_us=0)
                    assert not reviewed["done"] or field != "source", reviewed
                    tab.act("mark", start_us=1, end_us=5, label="x")
                assert yard.state() == before
    tab.close()
    row.check()


@pytest.mark.parametrize("path", ["gradio_api/file=", "static/", "assets/", "gradio_api/file/", "svelte/"])
def test_files_are_not_served(yard: Yard, path: str, ledger: Ledger) -> None:
    row = ledger.row("attack: files by URL", f"/{path}…, plain and encoded once and twice")
    secret = str(yard.outside / "secret.txt")
    climbs = [
        secret,
        secret[1:],
        ".." + secret,
        "../" * 12 + secret[1:],
        f"x/{'../' * 12}{secret[1:]}",
        "/proc/self/environ",
    ]
    once = [quote(climb, safe="") for climb in climbs]
    twice = [quote(climb, safe="") for climb in once]
    odd = [climb.replace("../", "..%5c") for climb in climbs] + [
        climb.replace("..", "%c0%ae%c0%ae") for climb in climbs
    ]
    odd += [f"{yard.inside}/out/secret.txt", f"{secret}%00.png", f"http://127.0.0.1:{yard.port}/", "file://" + secret]
    for climb in (*climbs, *once, *twice, *odd):
        with attempt(row, climb), hanging(yard.page, f"GET /{path}{climb} HTTP/1.1", "Connection: close") as link:
            reply = answer(link)
            assert reply.split(b" ", 2)[1] in (b"400", b"403", b"404", b"405"), reply[:80]
            assert SECRET.encode() not in reply and os.environ["PATH"].encode() not in reply
    assert not yard.called()
    row.check()


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


def test_models_are_taught_below_their_folder_only(yard: Yard, tmp_path: Path, ledger: Ledger) -> None:
    row, tab = (
        ledger.row("attack: names of models", "that are paths, hidden, or signs that shells and systems heed"),
        HttpTab(yard.page),
    )
    for k in range(4):
        told = tab.act("example", start_us=1_000_000 + k * 300_000, end_us=1_300_000 + k * 300_000, label="ab"[k % 2])
        assert told["done"], told
    for name in (
        "../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        ".hidden",
        "..",
        "",
        " ",
        "x" * 81,
        "a\0b",
        "a\nb",
        "C:x",
        "a|b",
        "--out",
        "<b>",
    ):
        with attempt(row, repr(name[:20])):
            told = tab.act("teach", name=name)
            if name == "--out":  # a name as any other
                assert told["done"] and tab.act("stop_teaching")["done"]
            else:
                assert not told["done"] and told["message"], told
    tab.close()
    assert not (tmp_path / "x").exists()
    row.check()
