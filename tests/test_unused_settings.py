"""Durations that do nothing in a run of this length are refused before step 1; defaults suit runs of every length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
import yaml
from running import ROOT, command, job
from running import result as result_of
from small_runs import config, option_yaml

import runner.components  # noqa: F401  (registers them)
from runner import tasks
from runner.__main__ import main
from runner.door.jobs import variant_jobs
from runner.door.options import find_conf
from runner.door.variants import vary
from runner.errors import ConfigError
from runner.registry import find, knobs, names
from runner.relations import InRun, Window
from runner.schema import Duration
from runner.settings import SETTINGS
from runner.unused_settings import RunLength, length_in, lines_about_limits, unused_settings

SMALL = ("data=synthetic", "model=mlp", "model.hidden=[8]", "augment=[]", "probe=[]", "device=cpu")
RUN = ("epochs=6", *SMALL)
# key -> (words that choose the option, 0 is allowed, a value after the end is allowed), worked out by hand
DATES = {
    "validate_every": ("", False, True),
    "checkpoint_every": ("", False, True),
    "scheduler.warmup": ("scheduler={}", True, False),
    "cyclic.half": ("scheduler=cyclic", False, False),
    "triangular.peak": ("scheduler=triangular", True, False),
    "cosine_restarts.cycle": ("scheduler=cosine_restarts", False, False),
    "onecycle.peak": ("scheduler=onecycle", True, False),
    "step.every": ("scheduler=step", False, False),
    "inverse_sqrt.timescale": ("scheduler=inverse_sqrt", False, True),
    "mix.until": ("mix={}", False, False),
    "regularizer.ramp": ("regularizer=[{}]", False, False),
    "resize.progressive.begin": ("resize=progressive", True, False),
    "resize.progressive.end": ("resize=progressive", False, False),
    "wsd.decay": ("scheduler=wsd", False, False),
    "multistep.milestones": ("scheduler=multistep", False, False),
    "exponential.every": ("scheduler=exponential", False, True),
    "swa.start": ("average=swa", True, False),
    "swa.every": ("average=swa", False, False),
    "swag.start": ("average=swag", True, False),
    "swag.every": ("average=swag", False, False),
    "snapshots.at": ("average=snapshots", False, False),
    "polyak.last": ("average=polyak", False, False),
    "staged.head_for": ("transfer=staged init_from=IMAGENET1K_V1", False, False),
    "staged.all_from": ("transfer=staged init_from=IMAGENET1K_V1", False, False),
    "lp_ft.probe": ("transfer=lp_ft init_from=IMAGENET1K_V1", False, False),
}
DURATION = Duration.__metadata__[0]  # type: ignore[attr-defined]


def marked(kind: Any) -> list[bool]:
    """Return, for each duration in a type, whether it says where in a run it has an effect."""
    if get_origin(kind) is Annotated:
        inner, *rules = get_args(kind)
        if any(isinstance(rule, Window) for rule in rules):
            return [True]
        if DURATION in rules:
            return [any(isinstance(rule, InRun) for rule in rules)]
        fields = [part for rule in rules for _, part in getattr(rule, "types", ())]
        return [each for part in (inner, *fields) for each in marked(part)]
    return [each for part in get_args(kind) for each in marked(part)]


def duration_knobs() -> dict[str, list[bool]]:
    tasks.load_tasks()
    found = {key: marked(kind) for key, kind in SETTINGS.items()}
    for group in find_conf().defaults:
        for name in names(group):
            found |= {f"{group}.{name}.{knob}": marked(kind) for knob, kind in knobs(find(group, name)).items()}
    return {key: each for key, each in found.items() if each}


KNOBS = duration_knobs()


@pytest.mark.parametrize("key", KNOBS)
def test_each_duration_says_where_in_a_run_it_has_an_effect(key: str) -> None:
    assert all(KNOBS[key])


def cases() -> list[tuple[str, str, str, bool]]:
    """Return (words, key, value, allowed) for each duration of each option: 0, negative, beyond the end."""
    found = []
    for full in KNOBS:
        group, _, rest = full.partition(".")
        if group == "optim":
            continue
        name, _, knob = rest.partition(".")
        known = DATES.get(full) or DATES.get(rest) or DATES.get(f"{group}.{knob}")
        assert known, f"{full} is a duration that this table does not have"
        choice, zero, beyond = known[0].format(name), known[1], known[2]
        key = full if group == "regularizer" else f"{group}.{knob}" if knob else group
        form = "[{}]" if knob in ("milestones", "at") else "{}"
        values = [("0%", zero), ("0steps", zero), ("-1epochs", False), ("300%", beyond), ("20epochs", beyond)]
        found += [(choice, key, form.format(value), allowed) for value, allowed in values]
    return found


@pytest.mark.parametrize(("choice", "key", "value", "allowed"), cases())
def test_each_duration_of_each_option_is_refused_where_it_has_no_effect(
    choice: str, key: str, value: str, allowed: bool
) -> None:
    words = [*RUN, *choice.split(), f"{key}={value}"]
    if allowed:
        job(*words)
        return
    with pytest.raises(ConfigError) as refusal:
        job(*words)
    line = str(refusal.value)
    assert line.startswith(f"{key}") and value.strip("[]") in line and "must be" in line and "\n" not in line


REFUSED = {
    "average=swa average.start=20epochs": "average.start: got '20epochs', must be at most the run's 6 epochs",
    "scheduler=multistep scheduler.milestones=[6epochs]": (
        "scheduler.milestones[0]: got '6epochs', must be before the end of the run (6 epochs)"
    ),
    "scheduler=step scheduler.every=100%": (
        "scheduler.every: got '100%', must be before the end of the run (6 epochs)"
    ),
    "average=swa average.every=2epochs": (
        "average.every: got '2epochs', must be at most what average.start=75% leaves of the run's 6 epochs"
    ),
    "scheduler=onecycle scheduler.warmup=80% scheduler.peak=21%": (
        "scheduler.peak: got '21%', must be at most what scheduler.warmup=80% leaves of the run's 6 epochs"
    ),
    "scheduler=multistep scheduler.milestones=[10%,50%,10%]": "scheduler.milestones: given twice ('10%')",
    "scheduler=multistep scheduler.milestones=[10%,101%]": (
        "scheduler.milestones[1]: got '101%', must be before the end of the run (6 epochs)"
    ),
    "optim.rules=[{match:bias,lr:1},{match:w},{match:bias,lr:2}]": (
        "optim.rules[2].match: got 'bias', which is that of optim.rules[0]; "
        "the first rule that matches counts, so this one would do nothing"
    ),
    "optim.rules=[{match:bias,until:7epochs}]": (
        "optim.rules[0].until: got '7epochs', must be at most the run's 6 epochs"
    ),
    "optim.rules=[{match:bias,until:0steps}]": "optim.rules[0].until: got '0steps', must be at least 1 step",
    "optim.rules=[{match:bias,active:[110%,null]}]": (
        "optim.rules[0].active[0]: got '110%', must be at most the run's 6 epochs"
    ),
    "optim.rules=[{match:bias,active:[null,0%]}]": "optim.rules[0].active[1]: got '0%', must be at least 1 step",
    "optim.rules=[{match:bias,active:[5steps,5steps]}]": (
        "optim.rules: got active=[5steps,5steps], must begin before it ends"
    ),
    "optim.no_decay=[bias,norm,bias]": "optim.no_decay: given twice ('bias')",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_nothing_is_named_with_its_value_and_what_is_allowed(words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        job(*RUN, *words.split())
    assert str(refusal.value) == REFUSED[words]


STEPS = {
    "validate_every=0.4steps": "which rounds to 0 of the run's 50 steps; must be at least 1 step",
    "scheduler.warmup=0.5%": "which rounds to 0 of the run's 50 steps; must be at least 1 step, or 0",
    "average=lookahead average.every=51": "average.every: got 51, must be at most the run's 50 steps",
    "probe=[throughput] probe.throughput.every=51": "throughput.every: got 51, must be at most the run's 50 steps",
    "average=polyak average.last=20steps average.blocks=21": (
        "average.blocks: got 21, must be at most the 20 steps of average.last=20steps"
    ),
    "average=polyak average.last=51steps": "average.last: got '51steps', must be at most the run's 50 steps",
}


@pytest.mark.parametrize(("words", "line"), STEPS.items())
def test_a_run_in_steps_is_checked_in_steps(words: str, line: str) -> None:
    given = [word for word in SMALL if not (words.startswith("probe") and word == "probe=[]")]
    with pytest.raises(ConfigError, match="must be") as refusal:
        job("steps=50", *given, *words.split())
    assert line in str(refusal.value)


FREE = (
    "average=swa average.start=100%", "average=swa average.start=0%", "scheduler=onecycle scheduler.peak=0%",
    "scheduler=triangular scheduler.peak=100%", "checkpoint_every=1000epochs", "validate_every=1000epochs",
    "patience=99", "optim.rules=[{match:head,active:[100%,null]}]", "optim.rules=[{match:head}]",
    "scheduler.warmup=100%", "scheduler=exponential scheduler.every=100epochs", "optim.rules=[{match:head,until:100%}]",
)  # fmt: skip


@pytest.mark.parametrize("words", FREE)
def test_what_has_an_effect_is_accepted(words: str) -> None:
    job(*RUN, *words.split())


def options() -> list[tuple[str, str]]:
    return [(group, name) for group in ("scheduler", "average", "optim", "probe", "mix") for name in names(group)]


@pytest.mark.parametrize(("group", "name"), options())
@pytest.mark.parametrize("length", [{"steps": 1}, {"epochs": 0.01}, {"epochs": 1}])
def test_the_defaults_suit_a_run_of_any_length(group: str, name: str, length: dict[str, Any]) -> None:
    made = config({group: [name] if group == "probe" else name, **length})
    one = RunLength(total_steps=1, steps_per_epoch=23, batch=64)
    assert not list(unused_settings(made, length_in(made), None)) and not list(unused_settings(made, one, None))


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (ROOT / "conf/recipe").glob("*.yaml")))
def test_the_values_of_a_recipe_suit_a_run_of_any_length(recipe: str, tmp_path: Path) -> None:
    text = (ROOT / f"conf/recipe/{recipe}.yaml").read_text()
    torch.save({"head.weight": torch.zeros(10, 4)}, tmp_path / "weights.pt")
    needed = [f"init_from={tmp_path}/weights.pt"] if "init_from" in text else []
    for words in (("steps=1",), ("epochs=0.1",)):
        made = job(f"recipe={recipe}", *needed, *words).config
        for length in (length_in(made), RunLength(total_steps=1, steps_per_epoch=23, batch=64)):
            assert not list(unused_settings(made, length, recipe))


def test_a_recipe_suits_what_a_task_makes_of_it_and_a_resume_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["recipe=speedrun_cifar10", "data=synthetic", "data.kind=shapes", "data.size=32", "data.batch_size=32"]
    words += ["data.train=64", "data.val=8", "data.test=8", "model.channels=[4,4,4]", "probe=[]", "device=cpu"]
    made = job(*words)
    assert made.recipe == "speedrun_cifar10"
    assert vary(find_conf(), made.config, {"seed": 3}, made.recipe)["seed"] == 3
    (launched,) = variant_jobs([made.config], tmp_path / "runs", made)
    assert launched.recipe == made.recipe
    assert main([*words, "hydra.run.dir=run", "epochs=1"]) == 0
    began = capsys.readouterr().err
    assert main(["resume=run"]) == 0
    assert "kept, as this run" not in began + capsys.readouterr().err


def test_the_defaults_that_are_looked_up_are_those_of_the_files() -> None:
    start = option_yaml("average", "swa")["start"]
    assert not list(unused_settings(config({"average": "swa", "steps": 1}), RunLength(total_steps=1), None))
    changed = config({"average": "swa", "average.start": f"{start[:-1]}0%", "steps": 1})
    assert list(unused_settings(changed, RunLength(total_steps=1), None))


# 1000 examples in batches of 64: 16 steps per epoch
LATE = {
    "epochs=1 average=swa average.start=17steps": "average.start: got '17steps', must be at most the run's 16 steps",
    "epochs=1 validate_every=20examples": (
        "validate_every: got '20examples', which rounds to 0 of the run's 16 steps; must be at least 1 step"
    ),
    "steps=8 average=polyak average.last=1epoch": "average.last: got '1epoch', must be at most the run's 8 steps",
    "steps=8 optim.rules=[{match:weight},{match:head.weight,lr:2}]": (
        "optim.rules[1].match: got 'head.weight', but optim.rules[0] has all parameters that it matches; "
        "the first rule that matches counts, so this one would do nothing"
    ),
}


@pytest.mark.parametrize("task", ["train", "preview"])
@pytest.mark.parametrize(("words", "line"), LATE.items())
def test_what_takes_the_data_to_say_is_refused_before_step_1_and_leaves_nothing(
    words: str,
    line: str,
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, f"task={task}", *words.split()]) == 2
    assert capsys.readouterr().err == f"runner: error: {line}\n"
    assert not list(tmp_path.iterdir())


def test_a_saved_run_with_such_values_is_resumed_and_evaluated_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "steps=4", "average=swa", "hydra.run.dir=old"]) == 0
    path = tmp_path / "old/config.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["average"]["start"], saved["validate_every"] = "300%", "0%"
    saved["optim"]["rules"] = [{"match": "bias"}, {"match": "bias"}]
    path.write_text(yaml.safe_dump(saved, sort_keys=False))
    for each in (tmp_path / "old/checkpoints").iterdir():
        each.unlink()
    record = result_of(tmp_path / "old")
    (tmp_path / "old/result.json").write_text(json.dumps({**record, "status": "interrupted"}))
    capsys.readouterr()
    assert main(["resume=old"]) == 0
    out = capsys.readouterr().err
    assert "average.start: got '300%', must be at most the run's 4 steps (kept, as this run was started with it)" in out
    assert "validate_every: got '0%'" in out and "optim.rules[1].match" in out
    assert result_of(tmp_path / "old")["status"] == "done"
    assert main(["task=evaluate", "run=old"]) == 0


@pytest.mark.ci_slice
@pytest.mark.slow
def test_a_saved_sweep_with_such_values_is_resumed(tmp_path: Path) -> None:
    done = command("-m", *SMALL, "steps=3", "average=swa", "seed=0,1", "hydra.sweep.dir=old", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "old/sweep.yaml"
    saved = yaml.safe_load(path.read_text())
    saved["overrides"] += ["average.start=300%"]
    path.write_text(yaml.safe_dump(saved))
    again = command("resume=old", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "old").glob("*/result.json"))) == 4
    refused = command("-m", *SMALL, "steps=3", "average=swa", "seed=0,1", "average.start=300%", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_limit_that_cannot_be_reached_gets_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = (
        "steps=4",
        "validate_every=2steps",
        "optim.no_decay=[bias,token]",
        "mix=mixup",
        "mix.p=0",
        "scheduler=plateau",
    )
    assert main([*SMALL, *given, "patience=2", "scheduler.patience=5"]) == 0
    out = capsys.readouterr().err
    assert "patience: 2 validations without improvement cannot be reached: the run makes 2" in out
    assert "scheduler.patience: 5 validations without improvement cannot be reached: the run makes 2" in out
    assert "optim.no_decay: the model has no parameter of kind token" in out
    assert "mix.p: 0, so mixup mixes no batch" in out
    assert main([*SMALL, "steps=4", "validate_every=1steps", "patience=1", "scheduler=plateau"]) == 0
    assert "cannot be reached" not in capsys.readouterr().err


def test_an_average_that_begins_at_the_end_gets_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "steps=2", "average=swa", "average.start=100%"]) == 0
    assert "average.start: 100% is the end of the run, so the average is the model" in capsys.readouterr().err


def test_a_decay_that_the_warm_up_does_not_reach_gets_a_line() -> None:
    """The decay of step t is (t - 1) / (t + 8): 8/17 at step 9."""

    def lines(steps: int, **knobs: object) -> list[str]:
        config = {"average": {"name": "ema", "warmup": True, **knobs}}
        return list(lines_about_limits(config, RunLength(total_steps=steps), steps, None))

    unreached = "average.decay: 0.999 is reached at step 8992, after the run's 570; average.warmup sets the decay"
    assert lines(570, decay=0.999) == [unreached]
    assert lines(8991, decay=0.999) != [] == lines(8992, decay=0.999)
    assert lines(8, decay=8 / 17) != [] == lines(9, decay=8 / 17)
    assert lines(1, decay=0.0) == lines(570, decay=0.99) == lines(570, decay=0.999, warmup=False) == []
