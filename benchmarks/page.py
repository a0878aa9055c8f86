"""The page as a person meets it: how soon it is there, and how many pictures and labels a second it shows.

    python benchmarks/page.py [--runs 3]

Starts `velora demo` and opens it in Chromium, which runs on the same machine and takes its share of it. One JSON object
a run on stdout, the medians last; times in seconds from the start of the command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from app.page import free_port

WATCH_S = 10
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
COUNT = "window.loads = 0; document.getElementById('strip').addEventListener('load', () => loads++)"
PICTURE = "document.getElementById('strip')?.naturalWidth > 0"
LABEL = "document.querySelector('#bars .percent')?.textContent"


def measure(page: Page) -> dict[str, float]:
    """One start of the demo, watched for WATCH_S seconds."""
    port = free_port("127.0.0.1", None)
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("velora")), "demo", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        next(line for line in demo.stderr if "the page is at" in line)
        figures = {"served_s": time.perf_counter() - began}
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_function(PICTURE)
        figures["first_picture_s"] = time.perf_counter() - began
        page.wait_for_function(LABEL)
        figures["first_label_s"] = time.perf_counter() - began
        page.evaluate(COUNT)
        page.wait_for_timeout(WATCH_S * 1000)
        figures["pictures_per_s"] = page.evaluate("loads") / WATCH_S
        shown = [value.split()[0] for value in page.locator("#status dd").all_inner_texts()]
        figures |= {"labels_per_s": float(shown[4]), "label_latency_ms": float(shown[5].rstrip(","))}
        stopping = time.perf_counter()
        demo.send_signal(signal.SIGINT)
        demo.wait(timeout=30)
        figures["stopped_after_s"] = time.perf_counter() - stopping
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        for _ in range(parser.parse_args().runs):
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            runs.append(measure(page))
            page.close()
            print(json.dumps(runs[-1]), flush=True)
    print(
        json.dumps({name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]} | {"median": 1})
    )


if __name__ == "__main__":
    main()
