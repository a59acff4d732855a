"""The tracker of docs/trackers.md works from outside."""

import json

from documented import write_files
from running import ROOT, command, result


def test_a_tracker_of_ones_own_gets_the_rows_and_the_end(tmp_path):
    assert write_files(ROOT / "docs" / "trackers.md", tmp_path) == ["my_lab/lines.py", "my_conf/tracker/lines.yaml"]
    words = ("--config-dir=my_conf", "plugins=[my_lab.lines]", "model=mlp", "model.hidden=[16]", "steps=12", "name=a")
    found = command(*words, "validate_every=5steps", "tracker=[lines]", "figures=never", cwd=tmp_path)
    assert found.returncode == 0 and "warning" not in found.stderr, found.stderr
    folder = tmp_path / "outputs" / "a"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    *lines, end = (folder / "lines.txt").read_text().splitlines()
    assert lines == [f"{row['step']} {row.get('val/accuracy')}" for row in rows]
    test = {f"test/{name}": value for name, value in result(folder)["scores"]["test"].items()}
    assert end == f"done {test}"
