"""A command in a forked process is the one in a process of its own."""

import json
import re
import shutil

import pytest
import warmed
from running import command, metrics, process, result

SMALL = ("model=mlp", "model.hidden=[8]", "augment=[]", "steps=4")


def without_times(text):
    """Return the lines of a text without numbers and without the widths that depend on them.

    They are sorted: the trials of a sweep end in any order.
    """
    return sorted(re.sub(r"[ ─]+", " ", re.sub(r"[\d.,]+", "", text)).splitlines())


def left(folder):
    """Return the names of what a command left, and the numbers of each run."""
    names = {re.sub(r"tfevents.*", "tfevents", str(path.relative_to(folder))) for path in folder.rglob("*")}
    runs = [path.parent for path in sorted(folder.rglob("result.json"))]
    return names, [(result(run)["scores"], metrics(run)) for run in runs]


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("words", [("name=run",), ("-m", "seed=0,1", "sweep=s")], ids=["run", "sweep"])
def test_it_leaves_and_prints_the_same(tmp_path, words):
    found = {}
    for start in (command, process):
        folder = tmp_path / start.__name__
        folder.mkdir()
        done = start(*SMALL, *words, cwd=folder)
        assert done.returncode == 0, done.stderr
        found[start] = left(folder), without_times(done.stdout), without_times(done.stderr)
    assert found[command] == found[process]
    assert warmed.can_fork({**warmed._START, "PYTHONWARNINGS": "error"})


def test_refusals_and_exit_codes_are_the_same(tmp_path):
    for words in (("model=resnt",), ("--version",), ("resume=nowhere",), ("-sc", "install=bash")):
        ended = [start(*words, cwd=tmp_path) for start in (command, process)]
        assert len({(each.returncode, each.stdout, each.stderr) for each in ended}) == 1, ended


PLUGIN = """
import json, os, sys
from pathlib import Path

place = Path(os.environ["VALUE"])
late = {"torch", "numpy", "sklearn", "matplotlib", "PIL"}
place.write_text(json.dumps([sorted(late & sys.modules.keys()), sys.path[0], sys.argv[1:]]))
"""


def test_a_plugin_finds_the_same_process(tmp_path):
    (tmp_path / "peek.py").write_text(PLUGIN)
    found = []
    for start in (command, process):
        place = tmp_path / start.__name__
        assert start("plugins=[peek]", *SMALL, "name=run", cwd=tmp_path, VALUE=str(place)).returncode == 0
        shutil.rmtree(tmp_path / "outputs")
        found.append(json.loads(place.read_text()))
    assert found[0] == found[1]


def test_other_surroundings_get_a_process_of_their_own():
    assert not warmed.can_fork({**warmed._START, "LC_ALL": "C"})
    assert not warmed.can_fork({**warmed._START, "PYTHONPATH": str(warmed.Path(__file__).parent / "at_start")})
