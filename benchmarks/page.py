"""The page as a person meets it: how soon it is there, and how many pictures and labels a second it shows.

    python benchmarks/page.py [--runs 3] [--large] [--throttle 6] [--viewers 8]

Starts `velora demo` and opens it in Chromium, which runs on the same machine and takes its share of it. One JSON object
a run on stdout, the medians last; times in seconds from the start of the command. `--large` plays the bundled recording
enlarged to 1280 x 720, `--throttle` slows the tab's CPU down so many times, `--viewers` makes more tabs look on.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cv2
import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from app.page import free_port
from recordings import bundled
from streams import EventPacket, RgbFrame, open_source, write_aedat4

WATCH_S = 10
LARGE = (1280, 720)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
COUNT = "window.loads = 0; document.getElementById('strip').addEventListener('load', () => loads++)"
PICTURE = "document.getElementById('strip')?.naturalWidth > 0"
#: of all tabs
RATES = re.compile(r"velora_(labels|shown_frames)_per_second{.*} (.*)")
LABEL = "document.querySelector('#bars .percent')?.textContent"
#: of the first tab, among the page's metrics; seconds become milliseconds
METRIC = re.compile(r'velora_(labels_per_second|label_seconds|paint_seconds){tab="0",[^}]*?(?:quantile="(.*)")?} (.*)')


def measure(browser: Browser, source: Path | None, throttle: float, viewers: int) -> dict[str, float]:
    """One start of the demo, watched for WATCH_S seconds."""
    port = free_port("127.0.0.1", None)
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("velora")), "demo", *([str(source)] if source else [])]
    with (
        subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True) as demo,
        ExitStack() as end,
    ):
        end.callback(demo.kill)  # whatever fails
        assert demo.stderr is not None
        next(line for line in demo.stderr if "the page is at" in line)
        figures = {"served_s": time.perf_counter() - began}
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_function(PICTURE)
        figures["first_picture_s"] = time.perf_counter() - began
        page.wait_for_function(LABEL)
        figures["first_label_s"] = time.perf_counter() - began
        others = [_other(port) for _ in range(viewers - 1)]
        figures |= _watched(page, throttle)
        figures |= _metrics(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        for other in others:
            other.kill()
        page.close()
        stopping = time.perf_counter()
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=30)
        figures["stopped_after_s"] = time.perf_counter() - stopping
    return {name: round(value, 2) for name, value in figures.items()}


def _watched(page: Page, throttle: float) -> dict[str, float]:
    """What a tab shows, and how smoothly."""
    if throttle > 1:
        page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": throttle})
    page.wait_for_timeout(3_000)
    page.evaluate(COUNT)
    page.wait_for_timeout(WATCH_S * 1000)
    return {"pictures_per_s": page.evaluate("loads") / WATCH_S}


def _metrics(text: str) -> dict[str, float]:
    """Labels a second, and when labels and pictures are there; of all tabs, the rates of the one that has least."""
    found: dict[str, float] = {}
    for name, value in RATES.findall(text):
        kind = f"least_{name}_per_s"
        found[kind] = min(found.get(kind, math.inf), float(value))
    for name, quantile, value in METRIC.findall(text):
        kind = f"{name.partition('_')[0]}_p{float(quantile) * 100:.0f}_ms" if quantile else "labels_per_s"
        found[kind] = float(value) * (1000 if quantile else 1)
    return found


def _other(port: int) -> subprocess.Popen[bytes]:
    """Another viewer: a program that takes pictures as fast as a tab does."""
    return subprocess.Popen([sys.executable, __file__, "--pull", str(port)])


def pull(port: int) -> None:
    """Take pictures until killed."""
    from gradio_client import Client

    address = f"http://127.0.0.1:{port}"
    token = Client(address, verbose=False, analytics_enabled=False).predict(api_name="/open_tab")
    after = 0
    with httpx.Client(base_url=address, timeout=30) as client:
        while True:
            state = json.loads(client.get(f"/frames/{token}?after={after}&width=460").content.partition(b"\n")[0])
            after = state.get("number", after)


def enlarged(folder: Path) -> Path:
    """The bundled recording at 1280 x 720."""
    path = folder / "large.aedat4"
    with open_source(bundled()["cards"]) as source, write_aedat4(path, LARGE, LARGE) as writer:
        assert source.event_size is not None
        width, height = source.event_size
        for item in source:
            if isinstance(item, EventPacket):
                events = item.events.copy()
                events["x"] = events["x"].astype(int) * LARGE[0] // width
                events["y"] = events["y"].astype(int) * LARGE[1] // height
                writer.write(replace(item, events=events))
            elif isinstance(item, RgbFrame):
                writer.write(replace(item, image=cv2.resize(item.image, LARGE)))
    return path


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--throttle", type=float, default=1)
    parser.add_argument("--viewers", type=int, default=1)
    parser.add_argument("--pull", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pull:
        pull(arguments.pull)
    runs = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        source = enlarged(Path(folder)) if arguments.large else None
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for _ in range(arguments.runs):
            runs.append(measure(browser, source, arguments.throttle, arguments.viewers))
            print(json.dumps(runs[-1]), flush=True)
    print(
        json.dumps({name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]} | {"median": 1})
    )


if __name__ == "__main__":
    main()
