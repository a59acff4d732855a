"""Changes of numbers, real and planted: an old run keeps its scores, and resumes only if it uses nothing changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from running import ROOT, events, job, metrics, result

import runner.tasks.train  # noqa: F401
from runner import numerics
from runner.__main__ import main
from runner.changes import Change
from runner.comparing.comparability import find_warnings
from runner.comparing.runs import find_runs
from runner.door.arguments import read_arguments
from runner.door.compose import compose_parts, compose_run, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.door.plan import plan_sweep
from runner.door.resume_sweep import sweep_command
from runner.door.variants import vary
from runner.engine.logs.sinks import read_metrics
from runner.engine.saving import checkpoint
from runner.errors import CheckpointError, ConfigError
from runner.hashes import group_hash, hash8
from runner.numerics import completed, same_config, stripped
from runner.tasks import evaluate as task_evaluate
from runner.tasks import start

RUNS = ROOT / "tests" / "fixtures" / "runs"
FIRST = json.loads((ROOT / "tests" / "fixtures" / "first_keys.json").read_text())


def change(group: str, option: str, says: str) -> Change:
    return Change(version=2, part=f"{group}={option}", concerns=lambda run: run[group]["name"] == option, says=says)


MIXUP = change("mix", "mixup", "other pairs")
MUON = change("optim", "muon", "other scale")
PLAIN = Change(version=3, part="predict=plain", concerns=lambda config: True, says="other rounding", scores=True)


@pytest.fixture
def folder(tmp_path):
    """A run of numerics version 1 that uses mixup and Adam, killed after step 6 of 9."""
    shutil.copytree(RUNS / "v1", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def planted(monkeypatch):
    return lambda *changes: monkeypatch.setattr(numerics, "CHANGES", changes)


def version(folder) -> int:
    return checkpoint.load(folder).meta["numerics"]


def test_a_run_folder_of_each_version_is_kept():
    kept = [path for path in RUNS.iterdir() if path.is_dir()]
    found = {numerics.version_in(checkpoint.load(path).meta, path) for path in kept}
    assert found == set(range(1, numerics.current() + 1))


def test_each_change_is_one_version_later_and_in_the_changelog():
    versions = [change.version for change in numerics.CHANGES]
    assert versions == sorted(versions) and set(versions) == set(range(2, numerics.current() + 1))
    text = (ROOT / "CHANGELOG.md").read_text()
    assert all(change.says in text for change in numerics.CHANGES)


def test_every_key_that_is_new_has_the_value_that_reproduces_what_was_before():
    """Of a new option no key is new: no saved config has chosen it."""
    conf = find_conf()
    missing = [key for key in conf.settings if key not in (*FIRST["settings"], *conf.defaults, *numerics.ADDED)]
    options = [(group, option, path) for group, files in conf.files.items() for option, path in files.items()]
    for group, option, path in options:
        content = yaml.safe_load(path.read_text())
        knobs = set(content if "name" in content else content.get(option, {})) - {"name", "defaults"}
        renamed = {new for old, new in numerics.RENAMED.items() if old.startswith(f"{group}={option}.")}
        added = knobs - renamed - set(FIRST.get(f"{group}={option}", knobs))
        missing += [key for knob in added if (key := f"{group}={option}.{knob}") not in numerics.ADDED]
    assert missing == [], "give each in runner.key_history.ADDED the value that reproduces the behavior before it"


def written_by_version_1(folder):
    """Turn the checkpoints of a run into those of a runner that knew no numerics version."""
    for path in (folder / "checkpoints").glob("*.json"):
        record = json.loads(path.read_bytes())
        del record["sha256"], record["meta"]["numerics"]
        body = json.dumps(record, separators=(",", ":")).encode()[:-1]
        path.write_bytes(body + b',"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')
    return folder


@pytest.fixture
def freezing(tmp_path):
    """A run whose BatchNorm is frozen from step 6 on, killed after step 6 of 9; of version 1 by its checkpoints."""
    return written_by_version_1(shutil.copytree(RUNS / "v2", tmp_path / "freezing"))


def test_the_run_of_version_2_has_a_frozen_batchnorm():
    tracked = {step: checkpoint.load(RUNS / "v2", before=step + 1).weights for step in (3, 6)}
    counts = [[int(v) for k, v in weights.items() if "num_batches" in k] for weights in tracked.values()]
    assert counts == [[3], [5]]


def test_an_older_run_that_freezes_resumes_only_when_told_to(freezing, capfd):
    assert main([f"resume={freezing}", "device=cpu"]) == 3
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "optim.rules with `until` or `active`: a frozen BatchNorm" in error and "resume_numerics=new" in error
    current = numerics.current()
    assert main([f"resume={freezing}", "device=cpu", "resume_numerics=new"]) == 0
    assert (result(freezing)["status"], result(freezing)["numerics"], version(freezing)) == (
        "done",
        [1, current],
        current,
    )


def test_an_older_run_that_freezes_is_evaluated(freezing):
    assert start(job("task=evaluate", "task.split=val", f"run={freezing}", "device=cpu")) == 0


def test_an_older_run_without_rules_that_freeze_resumes(folder):
    assert start(job(f"resume={folder}", "device=cpu")) == 0
    assert version(folder) == numerics.current()
    assert "numerics" not in result(folder)


@pytest.mark.parametrize(
    ("rules", "freezes"),
    [
        ([], False),
        ([{"match": "fc", "lr": 2}], False),
        ([{"match": "fc"}, {"match": "norm", "until": "5%"}], True),
        ([{"match": "norm", "active": [None, "5%"]}], True),
        ("until", False),
        (["until"], False),
        (None, False),
    ],
)
def test_which_configs_freeze(rules, freezes, planted):
    planted(*[change for change in numerics.CHANGES if change.version == 2])
    config = {"optim": {"name": "adam", "rules": rules}}
    assert numerics.check_unchanged(config, 1, "here", accept=True) is freezes
    assert not numerics.check_unchanged(config, 1, "here", accept=True, scores_only=True)
    assert not numerics.check_unchanged(config, 2, "here", accept=True)


@pytest.mark.parametrize(
    ("loss", "predict", "changed"),
    [
        ({"name": "cross_entropy", "label_smoothing": 0.1, "class_weights": None}, "plain", False),
        ({"name": "cross_entropy", "label_smoothing": 0.0, "class_weights": [1.0, 2.0]}, "plain", True),
        ({"name": "cross_entropy", "label_smoothing": 0.0, "class_weights": None}, "tta", True),
        ({"name": "mse"}, "plain", True),
        ({"name": "of_ones_own"}, "plain", True),
    ],
)
def test_which_configs_have_another_loss_of_evaluation(loss, predict, changed):
    config = {"loss": loss, "predict": {"name": predict}}
    for scores_only in (False, True):
        assert numerics.check_unchanged(config, 2, "here", accept=True, scores_only=scores_only) is changed
    assert not numerics.check_unchanged(config, 3, "here", accept=True)


def with_config(folder, **changes):
    """Change the saved config of a run."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))
    return folder


@pytest.mark.parametrize("words", [["resume={}"], ["run={}", "task=evaluate", "task.split=val"]])
def test_an_older_run_whose_loss_was_reported_in_another_way_goes_on_only_when_told_to(words, folder, capfd):
    with_config(folder, loss={"name": "mse"})
    words = [*(word.format(folder) for word in words), "device=cpu"]
    assert main(words) == 3
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and "the reported loss is the configured one" in error
    assert "resume_numerics=new" in error
    assert main([*words, "resume_numerics=new"]) == 0


@pytest.mark.parametrize("monitor", ["val/accuracy", "val/loss"])
def test_losses_of_the_older_way_enter_no_result(monitor, folder):
    with_config(folder, loss={"name": "mse"}, monitor=monitor)
    assert main([f"resume={folder}", "device=cpu", "resume_numerics=new"]) == 0
    found = result(folder)
    assert found["schema"] == 2 and found["numerics"] == [1, numerics.current()]
    losses = {step: float(value) for step, tag, value in metrics(folder) if tag == "val/loss" and step > 6}
    best, last = (found["scores"]["val"][at] for at in ("best", "last"))
    assert last["loss"] == losses[9] and "nll" not in last
    assert best.get("loss") == losses.get(best["step"])
    if monitor == "val/loss":
        assert best["step"] == 9
    assert [float(value) for step, tag, value in metrics(folder) if (step, tag) == (9, "_best/val_loss")] == [losses[9]]


def test_an_older_run_goes_on_under_the_present_names_of_its_scores(folder):
    with_config(folder, monitor="train/accuracy")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    before = checkpoint.load(folder).state["learner"]["patience"]["best"]
    assert "train/accuracy" in before and "train_eval/accuracy" not in before
    assert main([f"resume={folder}", "device=cpu"]) == 0
    found = result(folder)
    assert found["schema"] == 2 and found["scores"].keys() >= {"val", "train_eval"}
    best = found["scores"]["train_eval"]["best"]
    rows = {(step, tag): float(value) for step, tag, value in metrics(folder)}
    old = {step: value for (step, tag), value in rows.items() if tag == "train/accuracy"}
    new = {step: value for (step, tag), value in rows.items() if tag == "train_eval/accuracy"}
    assert set(old) == {3, 6} and set(new) == {9}
    assert best["accuracy"] == max([*old.values(), *new.values()])
    now = {**config, "monitor": "train_eval/accuracy"}
    assert hash8(config) == hash8(now) != hash8({**config, "monitor": "val/loss"})
    assert same_config(config, now) and same_config(now, config)


def test_old_rows_are_read_by_the_present_names(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    raw = {row.pop("step"): row for row in rows}
    read = dict(read_metrics(folder / "metrics.jsonl"))
    assert read[1] == raw[1] and "train/loss" in read[1]
    assert read[3]["train_eval/loss"] == raw[3]["train/loss"] and "train/loss" not in read[3]
    assert read[3]["train_eval/accuracy"] == raw[3]["train/accuracy"]


def test_a_checkpoint_says_which_version_wrote_it(tmp_path):
    words = ["model=linear", "augment=[]", "probe=[]", "figures=never", "steps=2", f"hydra.run.dir={tmp_path / 'run'}"]
    assert start(job(*words)) == 0
    assert version(tmp_path / "run") == numerics.current()
    assert "numerics" not in result(tmp_path / "run")


ADDED = {
    "patience": None,
    "predict": {"name": "plain"},
    "optim=adam.eps": 1e-8,
    "optim=muon.eps": 3.0,
    "regularizer=dropout.p": 0.25,
}


def test_keys_that_came_later_have_the_values_of_before(monkeypatch):
    monkeypatch.setattr(numerics, "ADDED", ADDED)
    now = job("optim=adam", "regularizer=[dropout]", "patience=3", "regularizer.dropout.p=0.5", "optim.eps=0.1").config
    old = {key: value for key, value in now.items() if key not in ("patience", "predict")}
    old["optim"] = {knob: value for knob, value in now["optim"].items() if knob != "eps"}
    old["regularizer"] = {"dropout": {k: v for k, v in now["regularizer"]["dropout"].items() if k != "p"}}
    filled = completed(old)
    assert (filled["patience"], filled["predict"]) == (None, {"name": "plain"})
    assert (filled["optim"]["eps"], filled["regularizer"]["dropout"]["p"]) == (1e-8, 0.25)
    assert filled.keys() == now.keys() and filled["optim"].keys() == now["optim"].keys()
    assert stripped(filled) == old and "eps" not in old["optim"]
    assert completed(now) == now and same_config(old, filled) and not same_config(old, now)
    assert hash8(filled) == hash8(old) != hash8(now)


OLD_NAME = ("data=imagefolder", "data.root=/images", "data.centre=0.5")
NEW_NAME = (*OLD_NAME[:2], "data.center=0.5")


def test_a_saved_config_with_the_old_name_of_a_knob_is_that_of_the_new_name():
    now = job(*NEW_NAME).config
    old = {**now, "data": {"centre" if knob == "center" else knob: value for knob, value in now["data"].items()}}
    assert completed(old) == now and completed(now) == now and same_config(old, now)
    assert not same_config(old, {**now, "data": {**now["data"], "center": 0.75}})
    added = {
        key.rpartition(".")[2]: value for key, value in numerics.ADDED.items() if key.startswith("data=imagefolder.")
    }
    assert {**added, **stripped(now)["data"]} == {**added, **stripped(old)["data"]} == old["data"]
    other = {**now, "data": {"name": "mine", "centre": 1}}  # a user's own data set may have such a knob
    assert completed(other) == other and stripped(other)["data"] == other["data"]


def test_the_hash_of_a_renamed_knob_is_that_of_its_old_name(monkeypatch):
    now = job(*NEW_NAME)
    monkeypatch.setattr(numerics, "RENAMED", {})
    old = {**now.config, "data": {**now.config["data"], "centre": 0.5}}
    del old["data"]["center"]
    assert (now.hash8, now.group_hash) == (hash8(old), group_hash(old)) and now.hash8 != hash8(now.config)


def test_the_command_line_reads_the_old_name_of_a_knob():
    now = job(*NEW_NAME)
    for words in (OLD_NAME, OLD_NAME[::-1]):
        found = job(*words)
        assert found.config == now.config and found.hash8 == now.hash8
    assert job(*OLD_NAME).folder_name == "data=imagefolder-data.centre=0.5"  # the same command, the same folder
    assert vary(find_conf(), job().config, OLD_NAME) == now.config
    with pytest.raises(ConfigError, match=r"data\.centre: given together with data\.center, its new name"):
        job(*NEW_NAME, "data.centre=0.75")
    with pytest.raises(ConfigError, match=r"data\.center: got 2, must be > 0 and <= 1"):
        job(*OLD_NAME[:2], "data.centre=2")
    with pytest.raises(ConfigError, match=r"data\.centre: unknown key 'centre'"):
        job("data.centre=0.5")


def test_a_config_file_with_the_old_name_of_a_knob_is_read_and_the_command_line_goes_first(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [imagefolder]\nroot: /images\ncentre: 0.75\n")
    conf = find_conf(str(tmp_path))
    for words, value in (((), 0.75), (("data.center=0.5",), 0.5), (("data.centre=0.5",), 0.5)):
        given = read_overrides(conf, ["data=mine", *words])
        with hydra_opened(conf):
            data = compose_run(conf, compose_parts(conf, given), given)["data"]
        assert data["center"] == value and "centre" not in data
        assert vary(conf, job().config, ["data=mine", *words])["data"] == data


def test_trials_of_a_sweep_over_the_old_name_are_those_of_the_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conf = find_conf()
    given = read_overrides(conf, ["data=imagefolder", "data.root=.", "data.centre=0.5,0.75"])
    with hydra_opened(conf):
        parts = compose_parts(conf, [each for each in given if not each.swept])
        jobs = plan_sweep(conf, parts, given).jobs
    assert [each.config["data"]["center"] for each in jobs] == [0.5, 0.75]
    assert [Path(each.folder).name[:-9] for each in jobs] == ["centre=0.5", "centre=0.75"]


def test_an_old_run_without_later_keys_ends_as_with_their_old_values(monkeypatch, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "whole")
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    values = {"regularizer=dropout.p": config["regularizer"]["dropout"].pop("p"), "clip": config.pop("clip")}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    monkeypatch.setattr(numerics, "ADDED", {**numerics.ADDED, **values})
    for each in (folder, tmp_path / "whole"):
        assert start(job(f"resume={each}", "device=cpu")) == 0
    assert [row for row in metrics(folder) if "time" not in row[1]] == [
        row for row in metrics(tmp_path / "whole") if "time" not in row[1]
    ]


def test_an_old_run_that_uses_a_changed_part_goes_on_only_when_told_to(folder, planted, capfd):
    planted(MIXUP)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main([f"resume={folder}", "device=cpu"]) == 3
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1
    assert "numerics version 1" in printed and "mix=mixup: other pairs" in printed and "resume_numerics=new" in printed
    assert {path: path.read_bytes() for path in before} == before
    assert main([f"resume={folder}", "device=cpu", "resume_numerics=new"]) == 0
    found = result(folder)
    assert (found["status"], found["schema"], found["numerics"]) == ("done", 2, [1, 2])
    assert version(folder) == 2
    assert main([f"resume={folder}", "device=cpu"]) == 0  # it is of this version now
    assert result(folder)["numerics"] == [1, 2]


def test_an_old_run_that_uses_no_changed_part_goes_on(folder, planted):
    planted(MUON)
    assert start(job(f"resume={folder}", "device=cpu")) == 0
    assert version(folder) == 2
    assert "numerics" not in result(folder)


def test_an_old_run_is_evaluated_to_the_score_it_had(folder, planted, monkeypatch):
    planted(MIXUP)
    last = json.loads((RUNS / "v1.json").read_text())
    scores = {}
    monkeypatch.setattr(task_evaluate, "show_scores", lambda folder, split, found, path: scores.update(found))
    assert start(job("task=evaluate", "task.split=val", f"run={folder}", "device=cpu")) == 0
    assert scores["accuracy"] == last["val/accuracy"]
    # Another processor may round the matrix products differently.
    assert scores["loss"] == pytest.approx(last["val/loss"], rel=1e-6)


def test_weights_whose_scores_have_changed_are_scored_only_when_told_to(folder, planted):
    planted(MIXUP, PLAIN)
    words = ["task=evaluate", "task.split=val", f"run={folder}", "device=cpu"]
    with pytest.raises(CheckpointError, match=r"predict=plain: other rounding\); .*resume_numerics=new") as caught:
        start(job(*words))
    assert "mixup" not in str(caught.value)
    assert start(job(*words, "resume_numerics=new")) == 0


def test_a_formula_that_has_changed_gives_an_evaluated_run_its_old_score_by_its_new_key(folder, monkeypatch, capfd):
    """The way to correct a formula of evaluation: a key that chooses it, whose old value is in ADDED."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["loss"]["name"] == "cross_entropy"
    smoothing = config["loss"].pop("label_smoothing")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    words = ["task=evaluate", "task.split=val", f"run={folder}", "device=cpu"]
    losses = {}
    for value in (smoothing, 0.5):
        monkeypatch.setattr(numerics, "ADDED", {**numerics.ADDED, "loss=cross_entropy.label_smoothing": value})
        assert start(job(*words)) == 0
        losses[value] = capfd.readouterr().out
    last = json.loads((RUNS / "v1.json").read_text())
    assert f"{last['val/loss']:.3f}" in losses[smoothing]


@pytest.mark.parametrize("words", [["resume={}"], ["resume={}", "resume_numerics=new"], ["task=evaluate", "run={}"]])
def test_a_newer_version_is_refused_in_one_line(words, folder, planted, monkeypatch, capfd):
    planted(MIXUP)
    assert main([f"resume={folder}", "device=cpu", "resume_numerics=new"]) == 0
    planted()
    capfd.readouterr()
    assert main([*(word.format(folder) for word in words), "device=cpu"]) == 3
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "numerics version 2, newer than 1 of this runner" in printed


@pytest.mark.parametrize("found", ["2", True, 0, -1, 1.0, None, [1]])
def test_a_version_that_is_none_is_refused(found):
    with pytest.raises(CheckpointError, match="malformed"):
        numerics.version_in({"numerics": found}, "here")


def test_a_comparison_says_which_runs_went_on_over_a_change(folder, planted, tmp_path):
    shutil.copytree(folder, tmp_path / "same")
    path = tmp_path / "same" / "config.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert start(job(f"resume={tmp_path / 'same'}", "device=cpu")) == 0
    planted(MIXUP)
    assert start(job(f"resume={folder}", "device=cpu", "resume_numerics=new")) == 0
    from runner.comparing.groups import group_runs
    from runner.comparing.verdicts import Criterion

    found = find_runs([str(folder), str(tmp_path / "same")])
    lines = find_warnings(group_runs(found.runs), found, Criterion(metric="val/accuracy", at="last", margin=None))
    assert [line for line in lines if line.startswith("numerics differs: ") and "1 then 2 (1 run)" in line]


def test_events_of_the_steps_after_a_change_follow_those_before(folder, planted):
    planted(MIXUP)
    assert start(job(f"resume={folder}", "device=cpu", "resume_numerics=new")) == 0
    assert [step for step, tag, _ in events(folder) if tag in ("train/loss", "2 train/loss")] == list(range(1, 10))


@pytest.mark.parametrize(
    ("saved", "given", "added"),
    [
        ({"name": "ema", "decay": 0.99}, [], True),
        ({"name": "ema", "decay": 0.99, "warmup": False}, [], True),
        ({"name": "ema", "decay": 0.99, "warmup": True}, [], False),
        ({"name": "none"}, ["average=none"], False),
        ({"name": "ema", "decay": 0.99}, ["average.warmup=true"], False),
    ],
)
def test_a_resumed_sweep_keeps_the_average_that_its_trials_began_with(saved, given, added, tmp_path):
    folder, words = tmp_path / "sweep", ["optim.lr=0.1,0.2", *given]
    (folder / "optim.lr=0.1").mkdir(parents=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"overrides": words, "config_name": "config", "give_again": []}))
    (folder / "optim.lr=0.1" / "config.yaml").write_text(yaml.safe_dump({"average": saved}))
    found = sweep_command(read_arguments([f"resume={folder}"])).overrides
    assert [word for word in found if word.startswith("average")] == [*given, *["average.warmup=false"][: int(added)]]


def test_a_saved_average_without_warmup_keeps_its_hash():
    now = job("average.warmup=false")
    old = {**now.config, "average": {"name": "ema", "decay": 0.99}}
    assert completed(old) == now.config and hash8(old) == now.hash8 != job().hash8
