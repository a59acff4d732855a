"""Trials that are there, but of other code or versions: one line says what differs, `rerun=changed` runs them again."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from running import result

from runner.__main__ import main
from runner.comparing.report import make_report
from runner.comparing.verdicts import Criterion
from runner.engine.provenance import provenance

SMALL = (
    "data=synthetic", "model=linear", "augment=[]", "probe=[]", "steps=2", "device=cpu", "hydra/launcher=basic",
)  # fmt: skip
GRID = ("-m", *SMALL, "sweep=s", "optim.lr=0.1,0.01", "seed=0,1")
SEARCH = (
    "-m", *SMALL, "sweep=s", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "hydra.sweeper.n_trials=2",
    "optim.lr=tag(log,interval(0.01,0.1))",
)  # fmt: skip
TOP = Path("outputs/sweeps/s")
PLUGIN = """
from my_helper import SLOPE
from torch import nn
from runner.registry import register


@register("activation")
def mine() -> nn.Module:
    return nn.LeakyReLU(SLOPE)
"""


class Said(NamedTuple):
    out: str
    err: str


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def said(capfd, *words: str, code: int = 0) -> Said:
    """Return what a command prints, and of its errors the lines that are not of a trial."""
    capfd.readouterr()
    assert main([*words]) == code
    out, err = capfd.readouterr()
    own = ("of other code or versions", "runner: error: ", "already done")
    return Said(out, "".join(line for line in err.splitlines(True) if any(word in line for word in own)))


def change(folder: Path, **changes) -> None:
    """Change what a run says of the versions that it ran with."""
    path = folder / "environment.json"
    found = json.loads(path.read_text())
    found["versions"] |= changes
    path.write_text(json.dumps(found))


def folders() -> list[Path]:
    return sorted(path.parent for path in TOP.glob("*/result.json") if "-old" not in path.parent.name)


def old() -> list[str]:
    return sorted(path.name for path in TOP.glob("*-old*"))


@pytest.mark.ci_slice
@pytest.mark.slow
def test_what_differs_is_told_by_kind_and_rerun_makes_these_again(capfd):
    assert said(capfd, *GRID).err == ""
    first, second, third, fourth = folders()
    for each in (first, second):
        change(each, torch="1.0")
    change(third, runner="0.0.9", numpy="1.0")
    untouched = (fourth / "result.json").stat().st_mtime_ns
    now = provenance([], device="cpu")["versions"]
    torch = f"torch 1.0, now {now['torch']}"
    both = f"runner 0.0.9, now {now['runner']}; numpy 1.0, now {now['numpy']}"
    for _ in range(2):
        out, err = said(capfd, *GRID)
        assert out.count("already done") == 4
        end = "used as before; rerun=changed runs them again"
        assert sorted(err.splitlines()) == sorted(
            [
                f"2 trials here are of other code or versions ({torch}): {end}",
                f"a trial here is of other code or versions ({both}): {end}",
            ]
        )
    kept = {path.name: (path / "result.json").read_bytes() for path in (first, second, third)}
    out, err = said(capfd, *GRID, "rerun=changed")
    assert out.count("already done") == 1 and err.count("run again; the old runs are kept as <name>-old") == 2
    assert (fourth / "result.json").stat().st_mtime_ns == untouched
    assert old() == sorted(f"{name}-old" for name in kept)
    assert {name: (TOP / f"{name}-old" / "result.json").read_bytes() for name in kept} == kept
    assert json.loads((TOP / f"{first.name}-old" / "replaced.json").read_text()) == {"by": first.name, "because": torch}
    assert {result(path)["status"] for path in folders()} == {"done"} and len(folders()) == 4
    # Nothing differs any more, and the saved command does not ask for it again
    out, err = said(capfd, *GRID, "rerun=changed")
    assert (out.count("already done"), err) == (4, "")
    change(first, torch="1.0")
    assert said(capfd, f"resume={TOP}").out.count("already done") == 4
    assert said(capfd, f"resume={TOP}", "rerun=changed").out.count("already done") == 3
    assert f"{first.name}-old-2" in old()


def test_compare_counts_only_what_replaced_a_run_and_says_so(capfd):
    said(capfd, *GRID)
    change(folders()[0], torch="1.0")
    said(capfd, *GRID, "rerun=changed")
    found = make_report([str(TOP)], Criterion(metric="val/accuracy", at="last"), None)
    assert found.runs == 4 and not any(row.group.repeats for row in found.rows)
    (name,) = old()
    assert f"1 run that was made again, left out ({name})" in found.warnings
    alone = make_report([str(TOP / name)], Criterion(metric="val/accuracy", at="last"), None)
    assert alone.runs == 1


def with_plugin(monkeypatch) -> tuple[str, ...]:
    Path("my_plugin.py").write_text(PLUGIN)
    Path("my_helper.py").write_text("SLOPE = 0.1\n")
    Path("conf/activation").mkdir(parents=True)
    Path("conf/activation/mine.yaml").write_text("# Mine\nname: mine\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    # In processes of their own, which import the files as they are then
    words = ["hydra.launcher.workers=2" if word == "hydra/launcher=basic" else word for word in GRID]
    return (*words, "--config-dir", "conf", "plugins=[my_plugin]", "activation=mine")


@pytest.mark.parametrize(
    "module", ["my_plugin", pytest.param("my_helper", marks=[pytest.mark.slow, pytest.mark.ci_slice])]
)
def test_a_changed_plugin_or_what_it_imports_is_other_code(capfd, monkeypatch, module):
    words = with_plugin(monkeypatch)
    assert said(capfd, *words).err == ""
    recorded = json.loads((folders()[0] / "environment.json").read_text())["code"]
    assert set(recorded) == {"my_plugin", "my_helper"}
    assert said(capfd, *words).err == ""
    path = Path(f"{module}.py")
    path.write_text(path.read_text() + "# changed\n")
    out, err = said(capfd, *words)
    assert out.count("already done") == 4
    assert f"4 trials here are of other code or versions (module {module} changed): used as before" in err
    assert said(capfd, *words, "rerun=changed").out.count("already done") == 0
    assert said(capfd, *words).err == ""


def git(*words: str) -> str:
    who = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run([*who, *words], env=clean, check=True, capture_output=True, text=True).stdout.strip()


def test_another_commit_of_the_users_repository_is_named(capfd):
    git("init", "-q")
    heads = []
    for text in ("1", "2"):
        Path("file").write_text(text)
        git("add", "file")
        git("commit", "-q", "-m", text)
        heads.append(git("rev-parse", "HEAD")[:8])
        _, err = said(capfd, *GRID)
        assert err.count("\n") == len(heads) - 1
    assert f"4 trials here are of other code or versions (git {heads[0]}, now {heads[1]}): used" in err
    Path("file").write_text("3")
    assert f"(git {heads[0]}, now {heads[1]}+)" in said(capfd, *GRID).err


def test_a_trial_that_goes_on_with_other_code_says_so_and_keeps_both(capfd):
    said(capfd, *GRID)
    first, *_ = folders()
    change(first, torch="1.0")
    path = first / "result.json"
    path.write_text(json.dumps({**result(first), "status": "interrupted"}))
    assert "resumed from the last checkpoint; rerun=changed runs them again from the start" in said(capfd, *GRID).err
    environment = json.loads((first / "environment.json").read_text())
    now = provenance([], device="cpu")["versions"]["torch"]
    assert environment["versions"]["torch"] == "1.0"
    assert [each["versions"]["torch"] for each in environment["continued"]] == [now]
    assert "torch 1.0" in said(capfd, *GRID).err
    path.write_text(json.dumps({**result(first), "status": "interrupted"}))
    said(capfd, *GRID, "rerun=changed")
    assert old() == [f"{first.name}-old"]
    assert "continued" not in json.loads((first / "environment.json").read_text())


def test_the_points_of_a_search_run_again(capfd):
    pytest.importorskip("optuna")
    said(capfd, *SEARCH)
    first, _ = folders()
    change(first, torch="1.0")
    out, err = said(capfd, *SEARCH)
    assert "a trial here is of other code or versions (torch 1.0" in err and "[1/" not in out
    out, err = said(capfd, *SEARCH, "rerun=changed")
    assert "2 points (2 complete)" in out and old() == [f"{first.name}-old"]
    assert said(capfd, *SEARCH).err == "" and len(folders()) == 2


def test_the_runs_of_a_task_run_again(capfd):
    words = (
        "recipe=grid_vs_random", "task.side=2", "task.draws=1", "data=synthetic", "model.hidden=[4]", "augment=[]",
        "probe=[]", "epochs=0.1", "device=cpu", "name=x", "hydra.launcher.workers=2",
    )  # fmt: skip
    said(capfd, *words)
    folder = Path("outputs/x")
    first = sorted(folder.glob("runs/*"))[0]
    change(first, torch="1.0")
    (folder / "result.json").unlink()
    assert "a trial here is of other code or versions (torch 1.0" in said(capfd, *words).err
    (folder / "result.json").unlink()
    _, err = said(capfd, *words, "rerun=changed")
    assert "run again; the old runs are kept as <name>-old" in err and err.count("already done") == 7
    assert [path.name for path in folder.glob("runs/*-old")] == [f"{first.name}-old"]
    assert [path.name for path in Path("outputs").glob("x*")] == ["x"]


def test_rerun_belongs_to_commands_that_have_trials(capfd):
    for words in (["rerun=changed"], ["task=list", "rerun=changed"]):
        assert said(capfd, *words, code=2).err == "runner: error: rerun: belongs to a sweep; add -m\n"
    assert "rerun: " in said(capfd, "-m", "rerun=never,changed", code=2).err
    assert "unknown value 'sometimes'" in said(capfd, "-m", "seed=0,1", "rerun=sometimes", code=2).err
