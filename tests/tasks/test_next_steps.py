"""The commands that a run and a sweep print at their end do what they say when they are copied into a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from running import command

from runner.tasks.next_steps import command_line

SMALL = ("data=synthetic", "data.kind=shapes", "data.size=8", "model=mlp", "augment=[]", "probe=[]", "steps=2")
WORDS = ("evaluate", "predict", "compare", "view", "best", "run it")


def next_steps(printed: str) -> dict[str, str]:
    """Return the last lines that say what to do next, by their first word."""
    found = [re.match(rf"({'|'.join(WORDS)}) +(.*)", line) for line in printed.splitlines()]
    return {match[1]: match[2] for match in found if match}


def in_shell(line: str, cwd: Path) -> str:
    """Run a printed command in a shell, with this Python."""
    line = line.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    done = subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_run_names_the_next_commands(tmp_path: Path) -> None:
    outputs = ("data=digits", *SMALL[3:], "outputs=my $outs")
    first = next_steps(command(*outputs, cwd=tmp_path).stdout)
    assert list(first) == ["evaluate", "predict", "view"]
    second = next_steps(command(*outputs, "optim.lr=0.02", cwd=tmp_path).stdout)
    assert list(second) == ["evaluate", "predict", "compare", "view"]
    assert second["view"] == "tensorboard --logdir 'my $outs'"
    assert "accuracy" in in_shell(second["evaluate"], tmp_path)
    assert "2 runs of 2 configurations" in in_shell(second["compare"], tmp_path)
    words = shlex.split(second["predict"])
    assert words[:4] == ["python", "-m", "runner", "task=predict"] and "task.out=predictions.csv" in words
    assert words[4] == shlex.split(second["evaluate"])[4] and words[4].startswith("run=my $outs/")


@pytest.mark.slow
@pytest.mark.ci_slice
def test_a_sweep_names_its_best_configuration_and_its_trials_name_nothing(tmp_path: Path) -> None:
    rates = ("optim.lr=0.0001,0.05", "seed=0,1")
    done = command("-m", *SMALL[:-1], "steps=20", *rates, "sweep=s", "hydra.launcher.workers=1", cwd=tmp_path)
    steps = next_steps(done.stdout)
    assert list(steps) == ["best", "run it", "compare", "view"]
    assert steps["view"] == "tensorboard --logdir outputs/sweeps/s"
    score = re.fullmatch(r"optim\.lr=0\.05: val/accuracy \(best\) (0\.\d{4}), mean of 2 seeds", steps["best"])
    scores = [float(each) for each in re.findall(r"^ *0\.05 .* (0\.\d{4}) ", done.stdout, re.M)]
    assert score and float(score[1]) == pytest.approx(sum(scores) / 2, abs=1e-4)
    words = shlex.split(steps["run it"])
    assert words[3:] == [*SMALL[:-1], "steps=20", "optim.lr=0.05"]
    assert "4 runs of 2 configurations" in in_shell(steps["compare"], tmp_path)
    assert "validation, best" in in_shell(steps["run it"], tmp_path)
    [log, *_] = (tmp_path / "outputs/sweeps/s").glob("*/trial.log")
    assert set(next_steps(log.read_text())) == {"view"}


def test_a_command_is_called_as_this_process_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for started, name in (
        ("/usr/bin/runner", "runner"),
        ("/lib/runner/__main__.py", "python -m runner"),
        ("-c", "python -m runner"),
    ):
        monkeypatch.setattr(sys, "argv", [started])
        assert command_line("resume=a b") == f"{name} 'resume=a b'"


@pytest.mark.slow
@pytest.mark.ci_slice
def test_the_best_point_of_a_recipe_that_searches_is_a_single_run(tmp_path: Path) -> None:
    words = ("recipe=search_lr_wd", "hydra.sweeper.n_trials=2", "epochs=0.2", "device=cpu", "hydra.launcher.workers=1")
    steps = next_steps(command(*words, cwd=tmp_path).stdout)
    assert "validation, best" in in_shell(steps["run it"], tmp_path)
    left = command("recipe=search_lr_wd", "hydra.mode=RUN", "optim.lr=0.1", cwd=tmp_path)
    assert left.returncode == 2 and "values to try for optim.weight_decay; add -m" in left.stderr
