"""Look the pinned libraries up among known weaknesses: `make audit`.

Asks a public service for each name and version in constraints.txt, and tells what it knows of, a line each. Fails where
there is something, and where not all could be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
_LONGEST_S = 600
_SHOWN = 5  # names


def main() -> int:
    """0: all were looked up, and nothing is known of any."""
    line = [sys.executable, "-m", "pip_audit", "-r", str(PINS), "--no-deps", "--disable-pip", "--format", "json"]
    done = subprocess.run([*line, "--progress-spinner", "off"], capture_output=True, text=True, timeout=_LONGEST_S)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _tell(f"nothing was looked up: {last[:200]}")
    known = [(own, weakness) for own in found for weakness in own.get("vulns", ())]
    for own, weakness in known:
        fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(f"{own['name']} {own['version']}: {weakness['id']}, fixed in {fixed}")
    missed = [own["name"] for own in found if "skip_reason" in own]
    if missed and len(missed) == len(found):
        return _tell("nothing was looked up: the advisories cannot be reached from here")
    if missed:
        named = ", ".join(missed[:_SHOWN])
        return _tell(f"{len(missed)} of {len(found)} libraries could not be looked up: {named}, …")
    print(f"{len(found)} libraries, {len(known)} known weaknesses")
    return 1 if known else 0


def _tell(line: str) -> int:
    print(f"audit: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
