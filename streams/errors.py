"""The one exception family of the streams: bad recordings and lost devices.

Each message is one line that names the file or device and says what to do about it.
"""


class StreamError(Exception):
    """A source cannot be opened or read on."""


class RecordingError(StreamError):
    """A recording is missing, unreadable, of another format, or holds nothing to show."""


class DeviceError(StreamError):
    """A camera or a network peer is missing or was lost."""
