"""A sensor that saturates: what becomes of the labels when far more events come than can be drawn.

    python benchmarks/overload.py [--rates 0.6 5 20 50] [--seconds 15] [--json]

A process stands for the server: it sends raw packets of random events (346 x 260 pixels, a packet a millisecond) and 30
frames a second by the DV network protocol, stamped with the host's clock; what a full socket does not take in 50 ms it
leaves out. Another one is `velora live --headless --json`. Rows: events sent, those that the client left out in whole
packets, labels a second, their age (from the end of the exposure to the printed line) and the client's memory at most.
Each rate is run a second time with a client that leaves out nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from streams import EVENT_DTYPE, EventPacket, RgbFrame
from streams.aedat4_writer import encode_packets, encode_stream_header

SIZE, PACKET_US, FRAME_US, EXPOSURE_US = (346, 260), 1_000, 33_333, 20_000
_LATE_S, _SETTLING_S = 0.05, 2.0
_CLIENT = "import sys; from app.cli import main; sys.exit(main(sys.argv[1:]))"
_UNTHINNED = f"from streams import link; link._BACKLOG_PACKETS = 1 << 60; {_CLIENT}"


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one rate."""

    rate: float  # events a second that the sensor makes
    thinned: bool
    sent: float  # events a second that the client took
    left_out: float  # by the client: share of all packets
    labels_s: float
    age_p50_ms: float
    age_p95_ms: float
    memory_mb: float


def main() -> None:
    """Print a row for each rate, with and without thinning."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.6, 5, 20, 50], help="million events a second")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    rows = [measure(rate * 1e6, arguments.seconds, thinned) for rate in arguments.rates for thinned in (True, False)]
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print("| events/s made | client | taken/s | packets left out | labels/s | age p50 | p95 | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        how = "thins" if row.thinned else "takes all"
        print(
            f"| {row.rate / 1e6:g} M | {how} | {row.sent / 1e6:.1f} M | {row.left_out:.0%} | {row.labels_s:.1f} "
            f"| {row.age_p50_ms:.0f} ms | {row.age_p95_ms:.0f} ms | {row.memory_mb:.0f} MB |"
        )


def measure(rate: float, seconds: float, thinned: bool) -> Row:
    """Server and client in processes of their own, from two seconds after the first label on."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(rate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None and server.stdout is not None
    ports = server.stdout.readline().strip()
    line = ["live", f"tcp://127.0.0.1:{ports}", "--headless", "--json", "--stride", "4"]
    program = _CLIENT if thinned else _UNTHINNED
    client = subprocess.Popen(
        [sys.executable, "-c", program, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ages: list[tuple[float, float]] = []
    reader = threading.Thread(target=_read, args=(client, ages), daemon=True)
    reader.start()
    while not ages:
        time.sleep(0.1)
    time.sleep(_SETTLING_S)
    began = time.monotonic()
    server.stdin.write("\n")
    server.stdin.flush()
    time.sleep(seconds)
    told_s, sent = time.monotonic() - began, server.communicate("\n", timeout=60)[0]
    memory = _peak_mb(client.pid)
    client.send_signal(signal.SIGINT)
    reader.join(60)
    assert client.stderr is not None
    told = client.stderr.read()
    client.wait(60)
    (packets, total), settled = map(int, sent.split()), [(at, age) for at, age in ages if began < at < began + told_s]
    p50, p95 = np.percentile([age for _, age in settled], [50, 95]) if settled else (np.nan, np.nan)
    found = re.search(r"packets of events left out[^:]*: ([\d,]+)", told)
    left_out = int(found[1].replace(",", "")) if found else 0
    taken = packets / told_s * rate * PACKET_US / 1e6
    return Row(rate, thinned, taken, left_out / total, len(settled) / told_s, p50, p95, memory)


def _read(client: subprocess.Popen[str], ages: list[tuple[float, float]]) -> None:
    assert client.stdout is not None
    for line in client.stdout:
        now = time.monotonic()
        ages.append((now, now * 1e3 - json.loads(line)["t_end_us"] / 1e3))


def _peak_mb(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


# --- the server -------------------------------------------------------------------------------------------------------


def serve(rate: float) -> None:
    """Send until the second line comes on stdin; then print how many packets went out since the first."""
    with socket.create_server(("127.0.0.1", 0)) as events_at, socket.create_server(("127.0.0.1", 0)) as frames_at:
        print(f"{events_at.getsockname()[1]},{frames_at.getsockname()[1]}", flush=True)
        ended = threading.Event()
        count = itertools.count()
        threading.Thread(target=_send_events, args=(events_at, rate, ended, count), daemon=True).start()
        threading.Thread(target=_send_frames, args=(frames_at, ended), daemon=True).start()
        sys.stdin.readline()
        before = next(count)
        sys.stdin.readline()
        ended.set()
        total = next(count) - 1  # but for the number drawn above
    print(total - before, total)


def _send_events(listener: socket.socket, rate: float, ended: threading.Event, count: Iterator[int]) -> None:
    rng, many = np.random.default_rng(0), max(1, round(rate * PACKET_US / 1e6))
    packets, times = [], []
    for _ in range(8):
        events = np.zeros(many, EVENT_DTYPE)
        events["t"] = np.sort(rng.integers(0, PACKET_US, many))
        events["x"], events["y"] = rng.integers(0, SIZE[0], many), rng.integers(0, SIZE[1], many)
        events["p"] = rng.random(many) < 0.5
        packet = bytearray(b"".join(encode_packets(EventPacket(0, PACKET_US, events), "none")))
        packets.append(packet)
        times.append(np.frombuffer(packet, EVENT_DTYPE, many, len(packet) - 16 * many)["t"])
    connection, _ = listener.accept()
    connection.sendall(encode_stream_header(EventPacket, SIZE, "none", "a saturated sensor"))
    offsets, at = [0] * len(packets), time.monotonic_ns() // 1_000
    for k in itertools.cycle(range(len(packets))):
        now = time.monotonic_ns() // 1_000
        if at + PACKET_US > now:
            time.sleep((at + PACKET_US - now) / 1e6)
        elif now - at > _LATE_S * 1e6:
            at = now - PACKET_US
        times[k] += at - offsets[k]
        offsets[k] = at
        try:
            connection.sendall(packets[k])
        except OSError:
            return
        if ended.is_set():
            return
        next(count)
        at += PACKET_US


def _send_frames(listener: socket.socket, ended: threading.Event) -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    connection, _ = listener.accept()
    connection.sendall(encode_stream_header(RgbFrame, SIZE, "none", "a saturated sensor"))
    while not ended.wait(FRAME_US / 1e6):
        now = time.monotonic_ns() // 1_000
        try:
            connection.sendall(b"".join(encode_packets(RgbFrame(now - EXPOSURE_US, now, image), "none")))
        except OSError:
            break


if __name__ == "__main__":
    main()
