"""A sweep of a version with other hashes: its trials are found, finished ones stay, the others are resumed.

`tests/fixtures/sweeps/first` was written by 91d65ec: `python -m runner -m` with the words of its `sweep.yaml`. One
trial is complete. The other was killed in step 7 of 9 (RUNNER_FAULT=step.backward:7).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from comparing_runs import write_run
from running import ROOT, command, job, metrics
from trials import SMALL

from runner import numerics, plain_yaml
from runner.__main__ import main
from runner.changes import Change
from runner.door.naming import legacy_hash8, trial_folders
from runner.errors import CheckpointError
from runner.hashes import digest, hash8
from runner.keys import experiment
from runner.numerics import completed, stripped
from runner.status import Status
from runner.sweeps.outcome import check_scores, finished_result

FIRST = ROOT / "tests" / "fixtures" / "sweeps" / "first"
DONE, KILLED = "optim.lr=0.1-19da66d9", "optim.lr=0.2-7aa29098"
WORDS = yaml.safe_load((FIRST / "sweep.yaml").read_text())["overrides"]
PLACE = "outputs/sweeps/optim.lr-9cf64be1"  # where the same words put it
# The same configs: defaults that have changed since have their former values, and the folder is the one of then
SAME = [*WORDS, "init.head=null", "optim.no_decay=[bias,norm]", f"hydra.sweep.dir={PLACE}"]


def test_the_old_hash_is_that_of_the_old_code_and_the_new_one_is_another():
    for name in (DONE, KILLED):
        config = plain_yaml.load(FIRST / name / "config.yaml")
        assert name.endswith(legacy_hash8(config))
        assert not name.endswith(hash8(config))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["-m", *SAME], [f"resume={PLACE}"], ["-m", *SAME, "hydra/launcher=basic"], [f"resume={PLACE}", "compile=false"]],
    ids=["the same command", "resume", "Hydra's launcher", "resume, compiled otherwise"],
)
def test_an_old_sweep_goes_on_and_nothing_is_done_again(words, tmp_path):
    place = tmp_path / PLACE
    shutil.copytree(FIRST, place)
    before, steps = content(place / DONE), metrics(place / KILLED)
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == [DONE, KILLED]
    assert content(place / DONE) == before
    ended = json.loads((place / KILLED / "result.json").read_text())
    assert Status(ended["status"]).is_result and ended["steps"] == 9
    kept = [row for row in steps if row[0] <= 6]
    assert kept and metrics(place / KILLED)[: len(kept)] == kept
    assert [row[0] for row in metrics(place / KILLED) if row[1] == "train/loss"] == list(range(1, 10))


def test_a_wider_command_adds_to_an_old_sweep(tmp_path):
    place = tmp_path / PLACE
    shutil.copytree(FIRST, place)
    words = [word if not word.startswith("optim.lr=") else "optim.lr=0.1,0.3" for word in SAME]
    done = command("-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already done") == 1
    (added,) = [path for path in place.iterdir() if path.is_dir() and path.name not in (DONE, KILLED)]
    assert added.name.endswith(hash8(plain_yaml.load(added / "config.yaml")))


@pytest.mark.parametrize("name", ["", "mine"], ids=["automatic name", "given name"])
def test_a_sweep_whose_names_have_whole_keys_goes_on_in_its_folders(name, tmp_path, monkeypatch):
    """As versions before the short keys named them, with the hashes of now."""
    monkeypatch.chdir(tmp_path)
    words = ["-m", *SMALL, "steps=3", "optim.lr=0.1,0.2", "seed=3,4", "hydra/launcher=basic"]
    words += [f"sweep={name}"] if name else []
    assert main(words) == 0
    (sweep,) = Path("outputs/sweeps").iterdir()
    for trial in [path for path in sweep.iterdir() if path.is_dir()]:
        trial.rename(trial.with_name(f"optim.{trial.name.replace('-seed', ',seed')}"))
    if not name:
        sweep = sweep.rename(sweep.with_name(f"optim.lr+seed{sweep.name.removeprefix('lr')}"))
    removed = min(sweep.glob("optim.lr=*"))
    shutil.rmtree(removed)
    before = content(sweep)
    for again in (words, [f"resume={sweep}"]):
        trial_folders.cache_clear()  # another process has its own
        assert main(again) == 0
        after = content(sweep)
        trials = {path for path in before if path.parts[0].startswith("optim.")}
        assert trials and {path: after[path] for path in trials} == {path: before[path] for path in trials}
        added = {path.parts[0] for path in after} - {path.parts[0] for path in before}
        assert added == {removed.name.removeprefix("optim.").replace(",", "-")}
        assert list(Path("outputs/sweeps").iterdir()) == [sweep]


@pytest.mark.parametrize("label", ["head", "first"])
def test_a_trial_whose_hash_counts_the_label_of_a_rule_is_not_done_again(label, tmp_path):
    """The hashes of the development versions between roles of keys and roles of fields."""
    words = [word for word in SAME if not word.startswith(("optim.lr=", "hydra.sweep.dir="))]
    words += ["optim.lr=0.1,0.3", f"optim.rules=[{{match: bias, lr: 2, name: {label}}}]"]
    config = plain_yaml.load(FIRST / DONE / "config.yaml")
    config["optim"]["rules"] = [{"match": "bias", "lr": 2, "name": "head"}]
    counted = {**experiment(completed(config)), "optim": config["optim"]}
    place = tmp_path / "outputs" / "sweeps" / "old"
    older = place / f"optim.lr=0.1-{digest([stripped(counted), config['seed']])}"
    assert not older.name.endswith(hash8(completed(config)))
    shutil.copytree(FIRST / DONE, older)
    (older / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    before = content(older)
    done = command("-m", *words, f"hydra.sweep.dir={place}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already done") == 1 and content(older) == before
    (added,) = [path for path in place.iterdir() if path.is_dir() and path != older]
    assert added.name.startswith("lr=0.3-") and added.name.endswith(hash8(plain_yaml.load(added / "config.yaml")))


@pytest.mark.ci_slice
@pytest.mark.slow
def test_an_old_trial_that_uses_a_changed_part_goes_on_only_when_told_to(tmp_path, monkeypatch, capfd):
    place = tmp_path / PLACE
    shutil.copytree(FIRST, place)
    monkeypatch.chdir(tmp_path)
    changed = Change(version=2, part="clip", concerns=lambda config: config["clip"] is None, says="other")
    monkeypatch.setattr(numerics, "CHANGES", (changed,))
    here = "hydra/launcher=basic"  # in this process, where the change is planted
    assert main([f"resume={PLACE}", here]) == 1
    assert "clip: other" in json.loads((place / KILLED / "result.json").read_text())["reason"]
    assert main([f"resume={PLACE}", here, "resume_numerics=new"]) == 0
    results = {name: json.loads((place / name / "result.json").read_text()) for name in (DONE, KILLED)}
    assert (results[KILLED]["status"], results[KILLED]["numerics"]) == ("done", [1, 2])
    assert "numerics" not in results[DONE]
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == [DONE, KILLED]


@pytest.mark.parametrize(
    ("loss", "monitor", "schema", "counts"),
    [
        ("mse", "val/loss", 1, False),
        ("mse", "val/loss", 2, True),
        ("mse", "val/accuracy", 1, True),
        ("cross_entropy", "val/loss", 1, True),
    ],
)
def test_an_old_score_that_was_measured_in_another_way_is_not_taken_for_one_of_now(
    loss, monitor, schema, counts, tmp_path
):
    folder = write_run(tmp_path / "trial", 0.5, schema=schema, monitor=monitor, loss__name=loss)
    made = replace(job("model=mlp"), config=plain_yaml.load(folder / "config.yaml"), folder=str(folder))
    if counts:
        assert finished_result(made).scores["val"]["best"]["accuracy"] == 0.5
        check_scores([str(folder)], made.config)
    else:
        for ask in (lambda: finished_result(made), lambda: check_scores([str(folder)], made.config)):
            with pytest.raises(CheckpointError, match=r"the reported loss is .*resume_numerics=new"):
                ask()
        assert finished_result(replace(made, config={**made.config, "resume_numerics": "new"}))


@pytest.mark.ci_slice
@pytest.mark.slow
def test_the_same_words_with_new_defaults_are_another_sweep(tmp_path):
    place = tmp_path / PLACE
    shutil.copytree(FIRST, place)
    done = command("-m", *WORDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "already done" not in done.stdout
    begun = [path for path in place.iterdir() if path.is_dir() and path.name not in (DONE, KILLED)]
    assert len(begun) == 2
    assert {plain_yaml.load(path / "config.yaml")["init"]["head"] for path in begun} == {"small"}
