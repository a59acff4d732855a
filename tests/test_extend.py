"""`extend=<run>`: a longer run equals one of that length; the old run stays as it is; a killed one goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from running import command, killed_in_step, run_in_child
from safetensors.torch import load_file

from runner.__main__ import main
from runner.comparing.groups import group_runs
from runner.comparing.runs import find_runs
from runner.engine.saving import checkpoint
from runner.engine.saving.locking import lock

TINY = (
    "model=mlp", "model.hidden=[16]", "log_every=1", "probe=[]", "figures=never", "test=never", "device=cpu",
    "data.batch_size=200", "optim=adam",
)  # fmt: skip
CONSTANT = (*TINY, "scheduler=constant")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def newest(folder: str) -> dict[str, bytes]:
    """Return the bytes of the last checkpoint's tensors, the optimizer's and the average's among them."""
    files = sorted(Path(folder, "checkpoints").glob("*.safetensors"))[-2:]
    return {path.name: path.read_bytes() for path in files}


def content(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def scores(folder: str) -> dict:
    return json.loads(Path(folder, "result.json").read_text())["scores"]


def config_of(folder: str) -> dict:
    return yaml.safe_load(Path(folder, "config.yaml").read_text())


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_extending_a_run_of_constant_rate_is_training_it_for_longer(average):
    words = (*CONSTANT, f"average={average}", *(["average.start=1epochs"] if average == "swa" else []))
    assert main([*words, "epochs=2", "hydra.run.dir=two"]) == main([*words, "epochs=4", "hydra.run.dir=four"]) == 0
    before = content("two")
    assert main(["extend=two", "epochs=4", "hydra.run.dir=longer"]) == 0
    assert newest("longer") == newest("four")
    assert scores("longer") == scores("four")
    assert content("two") == before


def test_a_killed_extended_run_goes_on_bit_for_bit_also_without_the_old_run():
    assert (
        main([*CONSTANT, "epochs=2", "hydra.run.dir=two"]) == main([*CONSTANT, "epochs=4", "hydra.run.dir=four"]) == 0
    )
    for step in (13, 20):
        words = ["extend=two", "epochs=4", f"hydra.run.dir=cut{step}"]
        assert run_in_child(killed_in_step(step, lambda words=words: main(words))) == -9
    Path("two").rename("away")
    for step in (13, 20):
        assert main([f"resume=cut{step}"]) == 0
        assert newest(f"cut{step}") == newest("four") and scores(f"cut{step}") == scores("four")


def test_the_schedule_is_that_of_the_whole_length_and_the_line_says_the_rates(capsys):
    assert main([*TINY, "scheduler=cosine", "epochs=2", "hydra.run.dir=two", "optim.lr=0.1"]) == 0
    capsys.readouterr()
    assert main(["extend=two", "epochs=4", "hydra.run.dir=longer"]) == 0
    said = capsys.readouterr().err
    from math import cos, pi

    last, following = ((1 + cos(pi * step / total)) / 20 for step, total in ((11, 12), (12, 24)))
    assert f"learning rate {last:.4g} in its last step, {following:.4g} in the next" in said
    rows = [json.loads(line) for line in Path("longer/metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["train/lr"] for row in rows if "train/lr" in row}
    assert min(rates) == 13
    assert all(rate == pytest.approx((1 + cos(pi * (step - 1) / 24)) / 20) for step, rate in rates.items())


def test_a_restart_begins_the_schedule_anew_also_when_it_is_resumed():
    assert main([*TINY, "scheduler=cosine", "epochs=2", "hydra.run.dir=two", "optim.lr=0.1"]) == 0
    words = ["extend=two", "epochs=4", "extend.restart=true"]
    assert main([*words, "hydra.run.dir=whole"]) == 0
    assert run_in_child(killed_in_step(20, lambda: main([*words, "hydra.run.dir=cut"]))) == -9
    assert main(["resume=cut"]) == 0
    assert newest("cut") == newest("whole")
    from math import cos, pi

    rows = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["train/lr"] for row in rows if "train/lr" in row}
    assert all(rate == pytest.approx((1 + cos(pi * (step - 13) / 12)) / 20) for step, rate in rates.items())


@pytest.mark.parametrize("cadence", ["auto", "1steps"])
def test_the_best_of_the_old_run_may_be_selected_again_and_is_saved_once(monkeypatch, cadence):
    # The model learns faster than its confidence grows, so that the first validation is the best
    words = [*CONSTANT, "average=none", "monitor=val/ece", f"checkpoint_every={cadence}"]
    assert main([*words, "epochs=2", "hydra.run.dir=two"]) == 0
    again = ["extend=two", "epochs=3", "hydra.run.dir=cut"]
    assert run_in_child(killed_in_step(15, lambda: main(again))) == -9
    saved_best, save = [], checkpoint.save

    def spy(*args, **more):
        saved_best.append([each.step for each in more["earlier"]])
        return save(*args, **more)

    monkeypatch.setattr(checkpoint, "save", spy)
    assert main(["extend=two", "epochs=3", "hydra.run.dir=worse"]) == 0
    best = json.loads(Path("two/result.json").read_text())["weights"]
    assert int(Path(best).name.partition(".")[0]) == 6 and saved_best[0] == [6] and not any(saved_best[1:])
    Path("two").rename("away")
    assert main(["resume=cut"]) == 0
    assert newest("cut") == newest("worse") and scores("cut") == scores("worse")
    for folder in ("worse", "cut"):
        assert Path(folder, best).read_bytes() == Path("away", best).read_bytes()


@pytest.mark.parametrize("cadence", ["auto", "2steps"])
def test_earlier_best_weights_of_the_old_run_are_written_once(cadence):
    # Nothing is learned, and of equal scores the first is the best
    words = [*CONSTANT, "average=none", "norm=none", "optim.lr=1e-9", "monitor=val/accuracy", "validate_every=3steps"]
    assert main([*words, f"checkpoint_every={cadence}", "steps=6", "hydra.run.dir=two"]) == 0
    best = json.loads(Path("two/result.json").read_text())["weights"]
    # A later file of a step has another name
    assert best == "checkpoints/00000003.weights.safetensors"
    assert main(["extend=two", "steps=12", "hydra.run.dir=longer"]) == 0
    assert json.loads(Path("longer/result.json").read_text())["weights"] == best
    assert Path("longer", best).read_bytes() == Path("two", best).read_bytes()


def test_windows_of_rules_follow_the_new_length():
    rules = "optim.rules=[{match:'hidden.*',until:50%}]"
    assert main([*CONSTANT, rules, "epochs=2", "hydra.run.dir=two"]) == 0
    assert main([*CONSTANT, rules, "epochs=4", "hydra.run.dir=four"]) == 0
    assert main(["extend=two", "epochs=8", "hydra.run.dir=longer"]) == 0
    weights = [
        load_file(sorted(Path(f"{name}/checkpoints").glob("*.state.safetensors"))[-1]) for name in ("two", "longer")
    ]
    name = next(each for each in weights[0] if "hidden" in each and each.endswith("weight"))
    assert not torch.equal(weights[0][name], weights[1][name])


def test_what_identifies_an_extended_run_is_the_old_configuration_its_step_and_the_seed():
    from runner.hashes import group_hash, hash8

    for seed in (0, 1):
        assert main([*CONSTANT, "steps=4", f"seed={seed}", f"hydra.run.dir=run{seed}"]) == 0
        assert main([f"extend=run{seed}", "steps=6", f"hydra.run.dir=more{seed}"]) == 0
    found = [config_of(f"more{seed}") for seed in (0, 1)]
    assert [each["extended_from"] for each in found] == [f"{group_hash(config_of(f'run{seed}'))}@4" for seed in (0, 1)]
    assert hash8(found[0]) != hash8(found[1])
    (group,) = group_runs(find_runs(["more0", "more1"]).runs)
    assert sorted(run.seed for run in group.runs) == [0, 1]
    Path("run0").rename("moved")
    assert main(["extend=moved", "steps=6", "hydra.run.dir=again"]) == 0
    assert hash8(config_of("again")) == hash8(found[0]) != hash8({**found[0], "extended_from": None})


def test_a_comparison_names_the_run_that_is_extended_and_the_notebook_does():
    assert main([*CONSTANT, "steps=4", "name=first"]) == 0
    for more in ([], ["extend.restart=true"]):
        assert main(["extend=outputs/first", "steps=6", *more]) == 0
    labels = [group.label for group in group_runs(find_runs(["outputs"]).runs)]
    assert sorted(labels) == [
        "extended_from=none,steps=4",
        "extended_from=outputs/first@4,steps=6",
        "extended_from=outputs/first@4,steps=6,extend_restart=true",
    ]
    assert "extended_from outputs/first@4 (" in Path("outputs/notebook.md").read_text()


def test_the_folder_is_a_new_one_named_after_the_old_run_and_its_curve_goes_on_there():
    assert main([*CONSTANT, "steps=4", "name=first"]) == 0
    assert main(["extend=outputs/first", "steps=6"]) == 0
    folder = Path("outputs/first-steps=6")
    assert folder.is_dir()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [5, 6]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["epochs=1"], "has made 12 steps, and the new run has 6 in all; expected more"),
        ([], "extend: says no length; expected how long the whole run is, as in epochs=60"),
        (["epochs=4", "optim.lr=1"], "optim.lr: cannot be changed with extend=... (allowed: "),
        (["epochs=4", "resume=two"], "extend: cannot be changed with resume=..."),
        (["epochs=4", "task=evaluate"], "extend: requires task=train"),
        (["epochs=4", "-m", "seed=0,1"], "extend: extends a single run; leave out -m"),
    ],
)
def test_what_cannot_be_extended_is_one_line_and_leaves_nothing(capsys, words, says):
    assert main([*CONSTANT, "epochs=2", "hydra.run.dir=two", "monitor=val/accuracy", "optim.lr=1e-9"]) == 0
    before, there = content("two"), set(Path().iterdir())
    capsys.readouterr()
    assert main(["extend=two", *words]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("runner: error: ")]
    assert len(errors) == 1 and says in errors[0]
    assert content("two") == before and set(Path().iterdir()) == there


def test_snapshots_of_a_run_of_another_length_are_one_line(capsys):
    assert main([*CONSTANT, "epochs=2", "hydra.run.dir=two", "average=snapshots", "average.at=[1epoch,2epochs]"]) == 0
    before = content("two")
    assert main(["extend=two", "epochs=4"]) == 2
    assert "the dates of average=snapshots depend on the run's length; start a new run" in capsys.readouterr().err
    assert content("two") == before


def test_a_folder_that_is_no_run_or_has_no_checkpoint_is_one_line(capsys):
    Path("empty").mkdir()
    assert main(["extend=empty", "epochs=4"]) == 2
    assert main(["extend=nowhere", "epochs=4"]) == 2
    assert main(["extend_restart=true"]) == 2
    said = capsys.readouterr().err
    assert "extend: got 'empty', must be a run folder" in said and "extend_restart: got true" in said


@pytest.mark.parametrize(
    ("keep", "says"),
    [("best", "keep=best; init_from=old starts from its weights"), ("none", "keep=none; start a new run")],
)
def test_a_run_that_kept_no_checkpoint_says_why_and_what_is_possible(capsys, keep, says):
    assert main([*CONSTANT, "steps=4", f"keep={keep}", "hydra.run.dir=old"]) == 0
    capsys.readouterr()
    assert main(["extend=old", "steps=6"]) == 2
    said = capsys.readouterr().err
    assert said == f"runner: error: extend: old has no checkpoint to go on from, because of {says}\n"
    assert main([*CONSTANT, "steps=4", "init_from=old", "hydra.run.dir=new"]) == (0 if keep == "best" else 2)
    gone = "init_from: old has no weights any more, because of keep=none"
    assert (gone in capsys.readouterr().err) == (keep == "none")


def test_a_run_that_stopped_early_needs_more_patience(capsys):
    assert main([*CONSTANT, "epochs=30", "patience=1", "optim.lr=1e-9", "hydra.run.dir=two"]) == 0
    assert main(["extend=two", "epochs=40", "hydra.run.dir=no"]) == 2
    assert "patience: got 1, and the run to extend waited 1 validation" in capsys.readouterr().err
    assert main(["extend=two", "epochs=40", "patience=2", "hydra.run.dir=yes"]) == 0


def test_a_run_that_goes_on_is_not_extended():
    assert main([*CONSTANT, "epochs=2", "hydra.run.dir=two"]) == 0
    before = content("two")
    with lock(Path("two")):
        # Its own process: a lock counts between processes
        found = command("extend=two", "epochs=4", cwd=Path())
    assert found.returncode == 6
    assert "extend: two is still in use by pid" in found.stderr
    assert content("two").keys() == before.keys()
