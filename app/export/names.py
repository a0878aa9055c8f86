"""Names of files for tools, of which each has its own trouble with spaces, dots, signs and letters of the world.

`day 1/Gehen, "schnell".aedat4` is `day_1_Gehen_schnell-3f1c0a92b7`: what is none of A-Z, a-z, 0-9, - becomes `_`, and
ten digits of a hash of the whole name follow. So no two recordings have one name, and a recording always has the same.
"""

from __future__ import annotations

import hashlib
import re

_LONGEST = 60


def key_of(recording: str) -> str:
    """The name, without a suffix, of the files of a recording."""
    digest = hashlib.sha256(recording.encode(errors="surrogateescape")).hexdigest()[:10]
    stem = re.sub(r"[^A-Za-z0-9-]+", "_", re.sub(r"\.\w{1,8}$", "", recording)).strip("_-")
    return f"{stem[:_LONGEST] or 'recording'}-{digest}"
