"""task=grid_vs_random: its runs are ordinary runs, and a killed process loses none of the finished ones."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from running import ROOT, command, job, result

from runner.__main__ import main

SMALL = ("recipe=grid_vs_random", "epochs=0.5", "model.hidden=[8]", "task.side=2", "task.draws=2", "device=cpu")
SLOW = [pytest.mark.slow, pytest.mark.ci_slice]
COUNT = 12  # trainings: 2 x 2 on the grid, 2 draws of 4


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    where = tmp_path_factory.mktemp("whole")
    done = command(*SMALL, "name=g", cwd=where)
    assert done.returncode == 0, done.stderr
    return where / "outputs" / "g", done


def runs(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in folder.glob("runs/*/result.json")}


def touched(folder: Path) -> dict[str, int]:
    """Return the start time of each finished run."""
    finished = {name: path for name, path in runs(folder).items() if result(path)["status"] == "done"}
    return {name: (path / "environment.json").stat().st_mtime_ns for name, path in finished.items()}


def test_it_reports_what_it_found(whole):
    folder, done = whole
    report = json.loads((folder / "report.json").read_text())
    grid, random = report["grid"], report["random"]
    assert len(grid) == 4 and [len(each) for each in random] == [4, 4]
    assert len({each["matters"] for each in grid}) == 2
    assert len({each["matters"] for each in random[0]}) == 4
    wins = sum(min(each["score"] for each in draw) < min(each["score"] for each in grid) for draw in random)
    assert report["random_is_better"] == wins
    assert f"a better one than the grid in {wins} of 2 draws" in done.stdout
    assert (folder / "grid_vs_random.png").read_bytes().startswith(b"\x89PNG")
    assert result(folder)["status"] == "done"


def test_its_trainings_are_ordinary_runs_of_the_same_config(whole):
    folder, _ = whole
    assert len(runs(folder)) == COUNT
    report = json.loads((folder / "report.json").read_text())
    tries = itertools.chain(report["grid"], *report["random"])
    scores = {(each["matters"], each["other"]): each["score"] for each in tries}
    for path in runs(folder).values():
        config = yaml.safe_load((path / "config.yaml").read_text())
        values = config["optim"]["lr"], config["optim"]["weight_decay"]
        words = [
            *SMALL[:3],
            "task=train",
            "device=cpu",
            "test=never",
            "figures=never",
            "predictions=never",
            "threads=1",
        ]
        assert config == job(*words, f"optim.lr={values[0]}", f"optim.weight_decay={values[1]}").config
        assert result(path)["status"] == "done" and result(path)["test_reads"] == 0
        assert result(path)["scores"]["val"]["best"]["loss"] == scores[values]


def started(*words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end_when(count: int, folder: Path, number: int, words: list[str]) -> tuple[int, str]:
    """Start the task, send it a signal after this many finished runs, and return exit code and output."""
    process = started(*words)
    until = time.monotonic() + 120
    while len(touched(folder)) < count and time.monotonic() < until:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0].decode()
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.ci_slice
@pytest.mark.parametrize(
    ("number", "again"),
    [
        pytest.param(signal.SIGKILL, "the same command", marks=SLOW),
        (signal.SIGKILL, "resume"),
        pytest.param(signal.SIGINT, "the same command", marks=SLOW),
        pytest.param(signal.SIGTERM, "resume", marks=SLOW),
    ],
)
def test_what_ended_early_continues_and_redoes_nothing(whole, number, again):
    words = [*SMALL, "name=g", "hydra.launcher.workers=1"]
    folder = Path("outputs/g")
    code, output = end_when(2, folder, number, words)
    assert code == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number], output
    before = touched(folder)
    assert 2 <= len(before) < COUNT
    if number != signal.SIGKILL:
        assert result(folder)["status"] == "interrupted"
        assert "resume=outputs/g" in output
    done = command(*(words if again == "the same command" else ["resume=outputs/g"]), cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    assert {name: touched(folder)[name] for name in before} == before
    assert [path.name for path in Path("outputs").iterdir() if path.is_dir()] == ["g"]
    assert (folder / "report.json").read_bytes() == (whole[0] / "report.json").read_bytes()
    assert result(folder)["status"] == "done"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_inside_a_sweep_its_trainings_run_in_the_trials_process(whole):
    assert main(["-m", *SMALL, "sweep=s", "seed=0,1", "hydra.launcher.workers=1"]) == 0
    folders = sorted(Path("outputs/sweeps/s").glob("seed=*"))
    assert [len(runs(folder)) for folder in folders] == [COUNT, COUNT]
    assert (folders[0] / "report.json").read_bytes() == (whole[0] / "report.json").read_bytes()
    assert f"[{COUNT}/{COUNT}]  done" in (folders[0] / "trial.log").read_text()
    before = touched(folders[0])
    assert main(["-m", *SMALL, "sweep=s", "seed=0,1"]) == 0
    assert touched(folders[0]) == before


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_training_that_diverges_is_a_result_and_one_that_fails_is_not(capfd):
    words = [*SMALL, "norm=none", "task.between=[1e29,1e30]", "name=d"]
    assert main(words) == 0
    assert {result(path)["status"] for path in runs(Path("outputs/d")).values()} == {"diverged"}
    assert main([*SMALL, "name=f", "hydra.launcher.timeout=0.001"]) == 1
    assert f"runner: error: {COUNT} of {COUNT} runs failed: " in capfd.readouterr().err
    assert result(Path("outputs/f"))["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["task.matters=optim.lrr"], "task.matters: got 'optim.lrr', must be a knob that is a number, as in optim.lr"),
        (
            ["loss=focal", "task.matters=loss.gamma"],
            "task.matters: got 'loss.gamma', but val/loss changes its meaning with it; use monitor=val/accuracy",
        ),
        (["task.between=[1.0,0.1]"], "task.between: must be [low, high]"),
        (["task.matters=optim.momentum", "task.between=[0.1,2]"], "optim.momentum: got "),
        (["hydra.launcher.workers=0"], "hydra.launcher.workers: got 0, must be >= 1"),
        (["hydra/launcher=basic"], "hydra/launcher: belongs to a sweep; add -m"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(words, line, capfd):
    typed = {word.partition("=")[0] for word in words}
    assert main([*(word for word in SMALL if word.partition("=")[0] not in typed), *words]) == 2
    assert capfd.readouterr().err.startswith(f"runner: error: {line}")
    assert not Path("outputs").exists()


def test_a_task_that_launches_nothing_takes_no_settings_of_a_launcher(capfd):
    assert main(["hydra.launcher.workers=2"]) == 2
    assert capfd.readouterr().err == "runner: error: hydra.launcher.workers: belongs to a sweep; add -m\n"
