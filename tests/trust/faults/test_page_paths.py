"""Paths, addresses and names that strangers give the running page: nothing outside of what is allowed is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.labelling.notes import BOOKS
from tests.app.fakes import until
from tests.app.label_outputs import SPANS, write_outputs
from tests.trust.faults.page_tools import HttpTab, answer, attempt, hanging
from tests.trust.faults.yard import SECRET, Yard
from tests.trust.ledger import Ledger


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


def test_links_below_a_folder_lead_nowhere_else(yard: Yard, ledger: Ledger) -> None:
    row = ledger.row("attack: links in output folders", "label, export, labels by hand of what lies beside a link")
    tab, before = HttpTab(yard.page), yard.state()

    def ended() -> dict[str, Any]:
        until(lambda: tab.look()["batch"]["over"])
        return dict(tab.look()["batch"])

    with attempt(row, "label"):
        out = yard.inside / "fresh"
        out.mkdir()
        (out / "deep").symlink_to(yard.outside / "deep")
        assert tab.act("label_folder", folder=str(yard.inside), out=str(out))["done"]
        assert "is a link to elsewhere" in ended()["message"]
    with attempt(row, "export"):
        out = write_outputs(yard.inside / "labelled", {"a.aedat4": SPANS})
        (out / "export-csv").mkdir()
        (out / "export-csv" / "README.txt").write_text("velora export: CSV\n")
        (out / "export-csv" / "videos").symlink_to(yard.outside)
        assert tab.act("export_folder", out=str(out), to="csv")["done"]
        assert "is a link to elsewhere" in ended()["message"]
    with attempt(row, "labels by hand"):
        (yard.inside / "a.labels.csv").symlink_to(yard.outside / "labels.csv")
        assert tab.act("open", address=str(yard.inside / "a.aedat4"))["done"]
        assert SECRET not in json.dumps(tab.look()) and tab.http.get(f"labels/{tab.token}.csv").status_code == 404
        told = tab.act("mark", start_us=1_000_000, end_us=1_100_000, label="x")
        assert not told["done"] and "is a link to elsewhere" in told["message"]
    tab.close()
    assert yard.state() == before, "something outside has changed"
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
