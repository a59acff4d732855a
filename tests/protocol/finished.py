"""The finished trainings of a protocol, for tests that kill it."""

import contextlib
import json
from pathlib import Path


def finished_runs(place: Path) -> dict[Path, int]:
    """Return the finished trainings of the protocol `p`, with the time of their result."""
    found = {}
    for path in (place / "outputs").glob("p/0*/runs-*/*/result.json"):
        with contextlib.suppress(ValueError, OSError):
            if json.loads(path.read_text())["status"] == "done":
                found[path] = path.stat().st_mtime_ns
    return found
