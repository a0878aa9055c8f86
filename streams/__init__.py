"""Event and frame streams: sources, the AEDAT 4 codec, synchronisation, rendering, the run loop."""

from streams.aedat4_writer import write_aedat4
from streams.errors import RecordingError, StreamError
from streams.items import EVENT_DTYPE, EventImage, EventPacket, Gap, RgbFrame, Sample
from streams.live import Live
from streams.player import Player
from streams.render import RenderConfig, motion_image, render_events
from streams.run import EVERY, LATEST, Policy, RunSummary, Sink, run
from streams.source import Source, open_source
from streams.synchronize import synchronize

__all__ = [
    "EVENT_DTYPE",
    "EVERY",
    "LATEST",
    "EventImage",
    "EventPacket",
    "Gap",
    "Live",
    "Player",
    "Policy",
    "RecordingError",
    "RenderConfig",
    "RgbFrame",
    "RunSummary",
    "Sample",
    "Sink",
    "Source",
    "StreamError",
    "motion_image",
    "open_source",
    "render_events",
    "run",
    "synchronize",
    "write_aedat4",
]
