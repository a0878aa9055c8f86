"""Checkpoints of strangers, chosen on the running page: refused in one line; nothing in them is run or followed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.page import Page
from tests.app.conftest import data_folder  # noqa: F401 (a fixture)
from tests.app.fakes import FakeRecognizer
from tests.trust.faults.page_tools import HttpTab, attempt
from tests.trust.ledger import Ledger
from velora.checkpoint import ADAPTER, CONFIG
from velora.loading import DEMO

_MOST_BYTES = 30_000_000


class Hostile:
    """Unpickled by an ordinary reader, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


Change = Callable[[Path, Path, int], None]


def config(**fields: Any) -> Change:
    def change(folder: Path, marker: Path, port: int) -> None:
        told = json.loads((folder / CONFIG).read_text())
        for name, value in fields.items():
            told[name] = value.format(port=port, marker=marker) if isinstance(value, str) else value
        (folder / CONFIG).write_text(json.dumps(told))

    return change


def file(name: str, content: Callable[[Path], bytes]) -> Change:
    return lambda folder, marker, _: (folder / name).write_bytes(content(marker)) and None


def _huge_header(_: Path) -> bytes:
    return (1 << 62).to_bytes(8, "little") + b"{}"


def _far_tensor(_: Path) -> bytes:
    head = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    return len(head).to_bytes(8, "little") + head


def _linked(folder: Path, marker: Path, port: int) -> None:
    (folder / ADAPTER).unlink()
    (folder / ADAPTER).symlink_to("/dev/zero")


CHANGES: dict[str, Change] = {
    "a pickle as tensors": file(ADAPTER, lambda marker: pickle.dumps(Hostile(marker))),
    "a pickle as config": file(CONFIG, lambda marker: pickle.dumps(Hostile(marker))),
    "a header of 2^62 bytes": file(ADAPTER, _huge_header),
    "a tensor of 4 TB": file(ADAPTER, _far_tensor),
    "no tensors": file(ADAPTER, lambda _: b""),
    "a device in place of tensors": _linked,
    "a config of 30 MB": file(CONFIG, lambda _: b" " * _MOST_BYTES + b"{}"),
    "a deep config": file(CONFIG, lambda _: b"[" * 200_000),
    "a backbone that is a path": config(backbone="../../../../etc/passwd"),
    "a backbone that is a folder": config(backbone="{marker}"),
    "a backbone by URL": config(backbone="http://127.0.0.1:{port}/x"),
    "a backbone of a hub": config(backbone="hf-hub:somebody/something"),
    "a backbone of a local folder": config(backbone="local-dir:{marker}"),
    "a tag that is a path": config(backbone="ViT-B-16-quickgelu", pretrained="../../{marker}"),
    "a tag that is a URL": config(backbone="ViT-B-16-quickgelu", pretrained="http://127.0.0.1:{port}/x"),
    "a field of its own": config(weights="{marker}"),
    "code to trust": config(trust_remote_code=True),
    "2^31 labels' rank": config(rank=1 << 31),
    "a window of 2^31": config(frames=1 << 31),
    "labels that steer a terminal": config(labels=["\x1b[2J", "b"]),
    "no number": config(temperature=float("nan")),
    "rendering of nothing known": config(rendering={"style": "{marker}"}),
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder for checkpoints."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_checkpoints_of_strangers_are_refused(
    small_recording: Path, models: Path, tmp_path: Path, ledger: Ledger
) -> None:
    row = ledger.row("attack: checkpoints", "pickles, lies, other backbones, paths and URLs", most_s=20)
    marker = tmp_path / "marker"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.2)
        for name, change in CHANGES.items():
            shutil.copytree(DEMO, models / name)
            change(models / name, marker, listener.getsockname()[1])
        offered = lambda: {path.name: path for path in models.iterdir()}  # noqa: E731
        with Page(FakeRecognizer, {"square": small_recording}, models=offered) as page:  # type: ignore[arg-type]
            tab = HttpTab(page)
            tab.sees()
            for name in CHANGES:
                with attempt(row, name):
                    told = tab.act("use_model", name=name)
                    assert not told["done"] and told["message"] and "\n" not in told["message"], told
                    assert len(told["message"]) <= 300 and told["message"].isprintable()
                    assert not marker.exists()
            with attempt(row, "the model goes on"):
                tab.sees(2)
                assert tab.look()["setup"]["model"] == "fake"
            tab.close()
        with pytest.raises(TimeoutError):
            listener.accept()
    row.found = "nothing was run, read elsewhere or fetched"
    row.check()
