"""The folders of runs and sweeps: references resolved once, no folder shared, every trial found again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml
from running import command, result

from runner.__main__ import main
from runner.door import folders
from runner.door.compose import compose_parts, hydra_opened
from runner.door.folders import with_moment
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.plan import Plan, plan_sweep

SMALL = ("data=synthetic", "model=linear", "augment=[]", "probe=[]", "device=cpu", "steps=1", "figures=never")
GRID = ("-m", *SMALL, "seed=0,1", "optim.lr=0.1,0.2")
SEARCH = (
    "-m", *SMALL, "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "optim.lr=interval(0.01,0.1)",
    "hydra.sweeper.n_trials=2",
)  # fmt: skip
NOON = time.strptime("2024-02-29 12:34:56", "%Y-%m-%d %H:%M:%S")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.time, "localtime", lambda: NOON)


def planned(*words: str) -> Plan:
    conf = find_conf()
    given = with_moment(read_overrides(conf, words))
    with hydra_opened(conf):
        return plan_sweep(conf, compose_parts(conf, [each for each in given if not each.swept]), given)


def places(plan: Plan) -> list[str]:
    return [os.path.relpath(str(job.folder), plan.folder) for job in plan.jobs]


def results(where: Path) -> dict[str, int]:
    """Return when each result below a folder was written."""
    return {str(path.relative_to(where)): path.stat().st_mtime_ns for path in where.rglob("result.json")}


SWEEP_DIRS = {
    "logs/${now:%Y-%m-%d}/${now:%H-%M-%S}": "logs/2024-02-29/12-34-56",
    "x/${optim.weight_decay}/${hydra:job.name}": "x/0.0005/runner",
    "${hydra.runtime.choices.model}, all of them": "linear, all of them",
    "${hydra:runtime.cwd}/x": "{cwd}/x",
    "plain": "plain",
}


@pytest.mark.parametrize(("given", "folder"), SWEEP_DIRS.items())
def test_the_folder_of_a_sweep_is_resolved(noon: None, given: str, folder: str, tmp_path: Path) -> None:
    assert str(planned(*GRID[1:], f"hydra.sweep.dir={given}").folder) == folder.format(cwd=tmp_path)


SUBDIRS = {
    "${seed}/${optim.lr}": ["0/0.1", "0/0.2", "1/0.1", "1/0.2"],
    "${hydra.job.num}": ["0", "1", "2", "3"],
    "a/${hydra:job.id}/b": ["a/0/b", "a/1/b", "a/2/b", "a/3/b"],
    "${now:%H}/${hydra.job.num}": ["12/0", "12/1", "12/2", "12/3"],
    "./t${hydra.job.num}/": ["t0", "t1", "t2", "t3"],
}


@pytest.mark.parametrize(("given", "expected"), SUBDIRS.items())
def test_the_folders_of_trials_are_resolved_for_each(noon: None, given: str, expected: list[str]) -> None:
    assert places(planned(*GRID[1:], f"hydra.sweep.subdir={given}")) == expected


def test_override_dirname_is_that_of_hydra() -> None:
    from hydra._internal.config_loader_impl import get_overrides_dirname
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = ["model=linear", "seed=1", "optim.lr=0.5"]
    parsed = OverridesParser.create().parse_overrides(words)
    theirs = get_overrides_dirname(parsed, exclude_keys=[], item_sep=",", kv_sep="=")
    plan = planned("model=linear", "seed=1,2", "optim.lr=0.5", "hydra.sweep.subdir=${hydra.job.override_dirname}")
    assert places(plan)[0] == theirs


def test_options_that_are_swept_name_the_folders_of_their_trials() -> None:
    plan = planned("model=mlp,linear", "hydra.sweep.subdir=${hydra.runtime.choices.model}/${optim.name}")
    assert places(plan) == ["mlp/momentum", "linear/momentum"]


REFUSED = {
    ("hydra.sweep.dir=${oc.env:HOME}/x",): "hydra.sweep.dir: got '${oc.env:HOME}/x', must refer to",
    ("hydra.sweep.dir=x/${hydra.job.num}",): "hydra.sweep.dir: got 'x/${hydra.job.num}', must be one folder for all",
    ("hydra.sweep.dir=x/${seed}",): "hydra.sweep.dir: got 'x/${seed}', must be one folder for all trials",
    ("hydra.sweep.dir=x/${optim}",): "hydra.sweep.dir: got 'x/${optim}', must be one folder for all trials",
    ("hydra.sweep.dir=x/${optim.lrr}",): "'${optim.lrr}' is none of them",
    ("hydra.sweep.dir=x/${a${b}}",): "hydra.sweep.dir: got 'x/${a${b}}', must refer to",
    ("hydra.sweep.dir=",): "hydra.sweep.dir: got '', must be the path of a folder",
    ("hydra.sweep.dir=null",): "hydra.sweep.dir: got null, must be the path of a folder",
    ("hydra.sweep.subdir=x",): "must differ between trials: seed=0-lr=0.1 and seed=0-lr=0.2 would share",
    ("hydra.sweep.subdir=${seed}",): "must differ between trials: seed=0-lr=0.1 and seed=0-lr=0.2",
    ("hydra.sweep.subdir=${oc.env:HOME}",): "hydra.sweep.subdir: got '${oc.env:HOME}', must refer to",
    ("hydra.sweep.subdir=../${hydra.job.num}",): "must be a folder of its own below that of the sweep",
    ("hydra.sweep.subdir=/tmp/${hydra.job.num}",): "must be a folder of its own below that of the sweep",
    ("hydra.sweep.subdir=.",): "must be a folder of its own below that of the sweep",
    ("hydra.sweep.subdir=" + "x" * 256 + "${hydra.job.num}",): "must have names of at most 255 bytes",
    ("model=linear", "hydra.sweep.subdir=${hydra.runtime.choices.modell}"): "is none of them",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_folder_that_cannot_be_named_is_one_line_and_leaves_nothing(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for word in GRID if word.partition("=")[0] not in {each.partition("=")[0] for each in words}]
    assert main([*given, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(REFUSED[words]) in err
    assert not list(Path().iterdir())


def test_one_trial_is_not_put_into_the_folder_of_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "data=imagefolder", "data.root=choice(a,a/b)", "hydra.sweep.subdir=${data.root}"]) == 2
    assert "must not put one trial into another: root=a-b would be in" in capsys.readouterr().err


def test_the_folder_of_a_single_run_is_resolved(noon: None, capsys: pytest.CaptureFixture[str]) -> None:
    folder = "r/${now:%Y}/${optim.lr}/${hydra:runtime.choices.model}/${hydra.job.override_dirname}"
    assert main([*SMALL, f"hydra.run.dir={folder}"]) == 0
    assert result(Path("r/2024/0.1/linear") / ",".join(sorted(SMALL)))["status"] == "done"
    capsys.readouterr()
    for wrong in ("${oc.env:HOME}", "${hydra.job.num}", "${optim.lrr}", "${now:%Y"):
        assert main([*SMALL, f"hydra.run.dir={wrong}"]) == 2
        assert capsys.readouterr().err.startswith(f"runner: error: hydra.run.dir: got '{wrong}', must refer to")


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize(("launcher", "absolute"), [("runner", False), ("basic", True)])
def test_a_sweep_with_its_own_folders_is_found_again_from_anywhere(
    launcher: str, absolute: bool, tmp_path: Path
) -> None:
    top = f"{tmp_path}/" if absolute else ""
    words = (
        f"hydra.sweep.dir={top}logs/${{now:%Y}}", "hydra.sweep.subdir=${now:%H-%M-%S}/${seed}/t${hydra.job.num}",
        f"hydra/launcher={launcher}", "sweep=mine",
    )  # fmt: skip
    done = command(*GRID, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = tmp_path.glob("logs/*")
    before = results(sweep)
    assert len(before) == 4 and {len(Path(path).parts) for path in before} == {4}
    configs = [yaml.safe_load(path.read_text()) for path in sweep.rglob("config.yaml")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for cwd, folder in ((tmp_path, sweep.relative_to(tmp_path)), (elsewhere, sweep)):
        again = command(f"resume={folder}", cwd=cwd)
        assert again.returncode == 0, again.stderr
        assert again.stdout.count("already done") == 4 and results(sweep) == before
    # A trial that has to run again gets the name of its sweep
    one = next(sweep.rglob("result.json")).parent
    for path in sorted(one.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    one.rmdir()
    assert command(f"resume={sweep}", cwd=elsewhere).returncode == 0
    assert {each["sweep"] for each in configs} == {"mine"}
    assert yaml.safe_load((one / "config.yaml").read_text())["sweep"] == "mine"


def test_the_same_command_finds_its_trials_and_another_one_does_not_take_their_folders(tmp_path: Path) -> None:
    words = ("-m", *SMALL, "hydra.sweep.dir=s", "hydra.sweep.subdir=a/t${hydra.job.num}")
    assert command(*words, "seed=0,1", cwd=tmp_path).returncode == 0
    first = results(tmp_path / "s")
    assert set(first) == {"a/t0/result.json", "a/t1/result.json"}
    for _ in range(2):
        # With another value at the front, the numbers are those of other trials
        assert command(*words, "seed=5,0,1", cwd=tmp_path).returncode == 0
        found = results(tmp_path / "s")
        assert {path: found[path] for path in first} == first
        assert set(found) - set(first) == {"a/t0-2/result.json", "a/t1-2/result.json", "a/t2/result.json"}


def test_a_resumed_sweep_is_in_the_notebook_of_its_outputs(tmp_path: Path) -> None:
    assert command(*GRID, "outputs=mine", "sweep=s", cwd=tmp_path).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    notes = tmp_path / "mine/notebook.md"
    text = notes.read_text()
    notes.unlink()
    assert command(f"resume={tmp_path}/mine/sweeps/s", cwd=elsewhere).returncode == 0
    assert notes.read_text() == text and not list(elsewhere.iterdir())


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_search_with_its_own_folders_is_resumed(tmp_path: Path) -> None:
    words = ("hydra.sweep.dir=s", "hydra.sweep.subdir=p/${optim.lr}", "hydra.sweeper.storage=sqlite:///study.db")
    done = command(*SEARCH, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = results(tmp_path / "s")
    assert len(before) == 2 and all(path.startswith("p/0.0") for path in before)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = command(f"resume={tmp_path}/s", cwd=elsewhere)
    assert again.returncode == 0, again.stderr
    assert results(tmp_path / "s") == before and not list(elsewhere.iterdir())


SHARED = {
    "x": "must differ between points: add ${optim.lr} or ${hydra.job.override_dirname}",
    "${hydra.job.num}": "the points of a search have no fixed number",
    "${optim.lr}/${hydra.job.numm}": "is none of them",
}


@pytest.mark.parametrize("subdir", SHARED)
def test_points_of_a_search_that_would_share_a_folder_are_refused(
    subdir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SEARCH, f"hydra.sweep.subdir={subdir}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and SHARED[subdir] in err and not list(Path().iterdir())
    assert main([*SEARCH, "hydra.sweeper.seeds=2", "hydra.sweep.subdir=${optim.lr}"]) == 2
    assert "add ${seed} or" in capsys.readouterr().err


def test_a_sweep_whose_trials_were_lost_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.door import sweep
    from runner.sweeps.launcher import Queued

    monkeypatch.setattr(sweep, "run_all", lambda *arguments: ([], 0))
    monkeypatch.setattr(sweep, "make_launcher", lambda *arguments: Queued())
    assert main([*GRID, "sweep=x"]) == 1
    assert capsys.readouterr().err == "runner: error: 4 of 4 trials were not run\n"


def test_a_search_without_a_point_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runner.search.study import Study

    monkeypatch.setattr(Study, "ask", lambda study: None)
    assert main([*SEARCH, "sweep=x"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "runner: error: no point has a result"
