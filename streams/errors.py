"""The one exception family of the streams.

Each message is one line that names the file and says what to do about it.
"""


class StreamError(Exception):
    """A source cannot be opened or read on."""


class RecordingError(StreamError):
    """A recording is missing, unreadable, of another format, or holds nothing to show."""


class CutShortError(RecordingError):
    """Reading was ended by something else than the recording, perhaps: memory ran out, or it took too long."""
