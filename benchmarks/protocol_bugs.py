"""Table of planted bugs with what the protocol says: `python -m benchmarks.protocol_bugs` prints it as Markdown.

Each bug of `tests/protocol/test_planted_bugs.py` is trained by `task=protocol` in a process of its own. The seconds are
those of the steps up to the one that fails.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).parent.parent / "tests"


def row_of(bug: str, results: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the row of a bug: the step that failed (or warned), its criterion, the seconds until then, its advice."""
    last = results[max(results)]
    levels = ("fail", "warn") if last["status"] == "fail" else ("warn",)
    bad = next(each for level in levels for each in last["criteria"] if each["level"] == level)
    seconds = sum(each["seconds"] for each in results.values())
    advice = next((each for each in last["advice"] if each["text"] or each["overrides"]), None)
    words = f" (`{' '.join(advice['overrides'])}`)" if advice and advice["overrides"] else ""
    said = f"{advice['text']}{words}" if advice else bad["why"]
    return f"| {bug} | {max(results)} | {bad['name']} | {seconds:.1f} | {said} |"


def main() -> None:
    """Print the table."""
    sys.path[:0] = [str(_TESTS), str(_TESTS / "protocol")]
    import sick_parts
    from running import process
    from test_planted_bugs import BUGS, NAMES, SHORT

    frozen = {"frozen layer": (["model=sick", "model.bug=frozen", "task.steps=[1]"], 1, "", "")}
    print("| bug | step | criterion | seconds | what it says |\n|---|---|---|---|---|")
    for bug, (words, *_) in {**BUGS, **frozen}.items():
        with tempfile.TemporaryDirectory() as folder:
            sick_parts.write(Path(folder))
            process(*sick_parts.GIVEN, *SHORT, *words, cwd=Path(folder))
            places = {step: Path(folder) / "outputs" / "s" / name / "result.json" for step, name in NAMES.items()}
            found = {step: json.loads(path.read_text()) for step, path in places.items() if path.exists()}
        print(row_of(bug, found), flush=True)


if __name__ == "__main__":
    main()
