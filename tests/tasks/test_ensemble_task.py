"""task=ensemble: its folder predicts the mean of the members, and everything else takes or refuses it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import job, result
from safetensors.torch import load_file, save_file
from small_runs import command_line_words, small

import runner
from runner.__main__ import main
from runner.engine.saving.locking import lock
from runner.ensembles.calibration import with_temperature
from runner.errors import CheckpointError, ConfigError, DataError, Locked
from runner.tasks import start

QUICK = {"model.hidden": [8], "optim.lr": 0.1, "epochs": 3, "data.batch_size": 128, "test": "never",
         "figures": "never", "validate_every": "1epoch"}  # fmt: skip
GENTLE = {"epochs": 1, "optim.lr": 0.03, "norm": "batch"}


def train(folder: Path, *words: str, **choices) -> Path:
    """Train a small run into a folder."""
    given = {**QUICK, **({} if choices.get("model", "mlp") == "mlp" else {"model.hidden": None}), **choices}
    words = (*command_line_words(small({k: v for k, v in given.items() if v is not None})), *words)
    assert start(job(*words, f"hydra.run.dir={folder}")) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Return a folder with three runs that differ in their seed."""
    top = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        train(top / f"seed={seed}", seed=seed)
    return top


@pytest.fixture(scope="module")
def tuned(runs, tmp_path_factory) -> Path:
    """Return a folder with three runs that begin with the weights of one, and have a BatchNorm."""
    top = tmp_path_factory.mktemp("tuned")
    first = train(top / "first", norm="batch", epochs=3)
    for seed in range(3):
        train(top / "runs" / f"seed={seed}", init_from=str(first), seed=seed, **GENTLE)
    return top / "runs"


def ensemble(folder: Path, runs, *words: str) -> Path:
    """Make an ensemble of runs in a folder."""
    given = [runs] if isinstance(runs, Path) else runs
    listed = ",".join(f'"{each}"' for each in given)
    assert start(job("task=ensemble", f"runs=[{listed}]", f"task.out={folder}", "figures=never", *words)) == 0
    return folder


def record(folder: Path) -> dict:
    return json.loads((folder / "ensemble.json").read_text())


def rewrite(folder: Path, **changes) -> None:
    (folder / "ensemble.json").write_text(json.dumps(record(folder) | changes))


def val_log_p(folder: Path) -> torch.Tensor:
    return load_file(folder / "predictions" / "val.safetensors")["log_p"]


def evaluated(folder: Path, *words: str) -> torch.Tensor:
    """Return the log-probabilities for validation that task=evaluate saves."""
    assert start(job("task=evaluate", f"run={folder}", "task.split=val", "figures=never", *words)) == 0
    return val_log_p(folder)


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)


def test_an_ensemble_predicts_the_mean_probability_of_its_members(runs, tmp_path):
    folder = ensemble(tmp_path / "e", runs)
    pixels = images()
    members = [runner.load(runs / f"seed={seed}").predict(pixels).probabilities for seed in range(3)]
    mean = torch.stack(members).mean(0)
    trained = runner.load(folder)
    assert torch.allclose(trained.predict(pixels).probabilities, mean, atol=1e-6)
    assert torch.allclose(trained.model(trained.preprocess(torch.from_numpy(pixels))).exp(), mean, atol=1e-6)
    assert repr(trained).startswith(f"Trained('{folder}': ensemble of 3, 10 classes, ensemble.json")
    assert [path.resolve().name for path in trained.members] == [f"seed={seed}" for seed in range(3)]


def test_an_evaluation_of_the_folder_has_the_scores_of_the_task(runs, tmp_path):
    folder = ensemble(tmp_path / "e", runs)
    saved = val_log_p(folder)
    scores = result(folder)["scores"]["val"]["best"]
    assert torch.allclose(evaluated(folder).exp(), saved.exp(), atol=1e-6)
    labels = load_file(folder / "predictions" / "val.safetensors")["labels"]
    assert scores["accuracy"] == pytest.approx((saved.argmax(1) == labels).float().mean().item())
    assert scores["nll"] == pytest.approx(torch.nn.functional.nll_loss(saved, labels).item(), rel=1e-5)


@pytest.mark.parametrize("words", [["task.combine=logits"], ["predict=tta"], ["task.temperature=2.5"]])
def test_the_folder_predicts_as_the_task_did(runs, tmp_path, words):
    folder = ensemble(tmp_path / "e", runs, *words)
    assert torch.allclose(evaluated(folder).exp(), val_log_p(folder).exp(), atol=1e-6)
    plain = ensemble(tmp_path / "plain", runs)
    assert not torch.allclose(val_log_p(plain).exp(), val_log_p(folder).exp(), atol=1e-3)


def test_each_member_averages_its_views_before_the_members_are_averaged(runs, tmp_path):
    folder, pixels = ensemble(tmp_path / "e", runs), images()
    tta = ["predict=tta"]
    members = [runner.load(runs / f"seed={s}", overrides=tta).predict(pixels).probabilities for s in range(3)]
    found = runner.load(folder, overrides=tta).predict(pixels).probabilities
    assert torch.allclose(found, torch.stack(members).mean(0), atol=1e-6)


def test_one_model_is_itself_bit_for_bit(runs, tmp_path):
    folder, pixels = ensemble(tmp_path / "e", runs / "seed=0"), images()
    assert torch.equal(
        runner.load(folder).predict(pixels).probabilities, runner.load(runs / "seed=0").predict(pixels).probabilities
    )
    assert torch.equal(evaluated(folder), evaluated(runs / "seed=0"))
    assert record(folder)["about"]["val"]["gain_over_best"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_copies_of_one_model_are_left_out_and_gain_nothing(runs, tmp_path, capsys):
    shutil.copytree(runs / "seed=0", tmp_path / "copy")
    (tmp_path / "link").symlink_to(runs / "seed=0")
    folder = ensemble(tmp_path / "e", [runs / "seed=0", tmp_path / "copy", tmp_path / "link"])
    assert "the same model as" in capsys.readouterr().err
    assert len(record(folder)["members"]) == 1
    assert record(folder)["about"]["val"]["gain_over_mean"]["value"] == 0.0


def test_predictions_that_runs_saved_are_not_computed_again(runs, tmp_path, capsys):
    ensemble(tmp_path / "e", runs)
    assert "predicting" not in capsys.readouterr().err
    expected = val_log_p(tmp_path / "e")
    for change in ("weights", "method", "data", "classes", "damage"):
        copy = shutil.copytree(runs, tmp_path / change)
        path = copy / "seed=1" / "predictions" / "val.safetensors"
        about = {"split": "val", "weights": "x", "predict": "plain", "method": {"name": "plain"}, "data": "0" * 16}
        if change == "damage":
            path.write_bytes(path.read_bytes()[:-9])
        else:
            save_file({**load_file(path)}, path, metadata={"about": json.dumps(about)})
        ensemble(tmp_path / f"e-{change}", copy)
        assert "predicting validation with 1 model" in capsys.readouterr().err
        assert torch.allclose(val_log_p(tmp_path / f"e-{change}"), expected, atol=1e-5)


def test_runs_without_saved_predictions_are_predicted(runs, tmp_path, capsys):
    copy = shutil.copytree(runs, tmp_path / "copy")
    for seed in range(3):
        shutil.rmtree(copy / f"seed={seed}" / "predictions")
    found, expected = ensemble(tmp_path / "e", copy), ensemble(tmp_path / "expected", runs)
    assert "predicting validation with 3 models" in capsys.readouterr().err
    assert torch.allclose(val_log_p(found), val_log_p(expected), atol=1e-5)


def test_the_best_by_validation_become_members(runs, tmp_path):
    scores = {seed: result(runs / f"seed={seed}")["scores"]["val"]["best"] for seed in range(3)}
    order = sorted(scores, key=lambda seed: (-scores[seed]["accuracy"], scores[seed]["nll"]))
    folder = ensemble(tmp_path / "e", runs, "task.members=best:2")
    assert {Path(each["path"]).name for each in record(folder)["members"]} == {f"seed={seed}" for seed in order[:2]}
    with pytest.raises(ConfigError, match=r"task.members: got 'best:4', must be at most best:3"):
        ensemble(tmp_path / "f", runs, "task.members=best:4")
    assert not (tmp_path / "f").exists()


def test_greedy_selection_is_scored_on_examples_that_did_not_select(runs, tmp_path):
    folder = ensemble(tmp_path / "e", runs, "task.members=greedy")
    found = record(folder)
    assert math.isclose(sum(each["weight"] for each in found["members"]), 1)
    count = len(val_log_p(folder))
    assert found["about"]["examples"] == {"selection": (count + 1) // 2, "scores": count // 2}
    assert found["about"]["val"]["examples"] == count // 2


def test_a_fitted_temperature_is_measured_on_examples_that_did_not_fit_it(runs, tmp_path):
    folder, plain = ensemble(tmp_path / "e", runs, "task.temperature=fit"), ensemble(tmp_path / "plain", runs)
    found, count = record(folder), len(val_log_p(folder))
    assert found["temperature"] != 1
    assert found["about"]["val"]["examples"] == (count + 1) // 2
    assert found["about"]["temperature_fitted_on"] == f"the other {count // 2} validation examples"
    expected = with_temperature(val_log_p(plain).double().numpy(), found["temperature"])
    assert np.allclose(np.exp(expected), val_log_p(folder).exp().numpy(), atol=1e-5)
    assert torch.allclose(evaluated(folder).exp(), val_log_p(folder).exp(), atol=1e-5)


def test_different_architectures_and_preprocessing_are_combined(runs, tmp_path):
    other = train(tmp_path / "other", model="linear", preprocess="scale01", loss="bce")
    folder, pixels = ensemble(tmp_path / "e", [runs / "seed=0", other]), images()
    members = [runner.load(each).predict(pixels).probabilities for each in (runs / "seed=0", other)]
    assert torch.allclose(runner.load(folder).predict(pixels).probabilities, sum(members) / 2, atol=1e-6)


def test_the_test_split_is_read_if_asked_for_and_counted(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / "copy")
    folder = ensemble(tmp_path / "e", copy, "task.final_test=true", "task.members=best:2", "task.copy=true")
    used = {Path(each["path"]).name.partition("-")[2] for each in record(folder)["members"]}
    reads = {seed: result(copy / f"seed={seed}")["test_reads"] for seed in range(3)}
    assert reads == {seed: int(f"seed={seed}" in used) for seed in range(3)}
    assert (
        result(folder)["test_reads"] == 1 and result(folder / record(folder)["members"][0]["path"])["test_reads"] == 1
    )
    assert "test" in result(folder)["scores"] and (folder / "ensemble_test.html").is_file()
    scores = result(folder)["scores"]["test"]
    assert start(job("task=evaluate", f"run={folder}", "figures=never")) == 0
    assert result(folder)["test_reads"] == 2
    assert {seed: result(copy / f"seed={seed}")["test_reads"] for seed in range(3)} == reads
    test = load_file(folder / "predictions" / "test.safetensors")
    assert scores["accuracy"] == pytest.approx((test["log_p"].argmax(1) == test["labels"]).float().mean().item())


def test_without_final_test_nothing_is_counted(runs, tmp_path):
    folder = ensemble(tmp_path / "e", runs)
    assert result(folder)["test_reads"] == 0 and "test" not in result(folder)["scores"]


def test_a_member_in_use_is_not_counted_and_neither_is_any_other(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / "copy")
    with lock(copy / "seed=2"), pytest.raises(Locked):
        ensemble(tmp_path / "e", copy, "task.final_test=true")
    assert not any(result(copy / f"seed={seed}")["test_reads"] for seed in range(3))
    assert not (tmp_path / "e").exists()


def test_a_self_contained_folder_can_be_moved(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / "copy")
    folder, pixels = ensemble(tmp_path / "e", copy, "task.copy=true"), images()
    expected = runner.load(folder).predict(pixels).probabilities
    shutil.rmtree(copy)
    moved = shutil.move(folder, tmp_path / "moved")
    assert torch.equal(runner.load(moved).predict(pixels).probabilities, expected)


def test_a_folder_and_its_members_can_be_moved_together(runs, tmp_path):
    top = tmp_path / "top"
    shutil.copytree(runs, top / "runs")
    ensemble(top / "e", top / "runs")
    moved = shutil.move(top, tmp_path / "elsewhere")
    assert len(runner.load(moved / "e").members) == 3


def test_a_member_that_is_gone_or_changed_is_one_line(runs, tmp_path, capsys):
    copy = shutil.copytree(runs, tmp_path / "copy")
    folder = ensemble(tmp_path / "e", copy)
    weights = copy / "seed=1" / record(folder)["members"][1]["weights"]
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert main(["task=predict", f"run={folder}", f"task.images={tmp_path / 'none'}"]) == 7
    with pytest.raises(CheckpointError, match="has changed"):
        runner.load(folder)
    weights.write_bytes(content)
    config = (copy / "seed=1" / "config.yaml").read_text()
    (copy / "seed=1" / "config.yaml").write_text(config.replace("name: standardize", "name: scale01"))
    with pytest.raises(CheckpointError, match=r"config.yaml has changed"):
        runner.load(folder)
    shutil.rmtree(copy / "seed=1")
    assert main(["task=evaluate", f"run={folder}"]) == 3
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("runner: error: ") and "is missing" in error and "task.copy=true" in error


def test_an_edited_file_is_one_line(runs, tmp_path):
    folder = ensemble(tmp_path / "e", runs)
    rewrite(folder, combine="median")
    with pytest.raises(CheckpointError, match="combine: got 'median'"):
        runner.load(folder)


@pytest.mark.parametrize("format_", ["torch_export", "safetensors"])
def test_an_ensemble_is_exported_as_one_file(runs, tmp_path, format_):
    folder = ensemble(tmp_path / "e", runs, "task.temperature=2")
    name = {"torch_export": "m.pt2", "safetensors": "m.safetensors"}[format_]
    path = tmp_path / name
    assert start(job("task=export", f"run={folder}", f"task.format={format_}", f"task.out={path}")) == 0
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["ensemble"]["temperature"] == 2 and len(card["ensemble"]["members"]) == 3
    if format_ == "torch_export":
        pixels = torch.from_numpy(images())
        found = torch.export.load(path).module()(pixels)
        assert torch.allclose(found, runner.load(folder).predict(pixels).probabilities, atol=1e-5)


@pytest.mark.parametrize("words", [["resume={}"], ["extend={}", "epochs=9"], ["init_from={}"]])
def test_an_ensemble_is_no_run_to_go_on_with(runs, tmp_path, words):
    folder = ensemble(tmp_path / "e", runs)
    with pytest.raises(ConfigError, match="an ensemble; expected one"):
        start(job(*(word.format(folder) for word in words)))


def test_runs_that_cannot_be_members_are_left_out_with_a_line(runs, tmp_path, capsys):
    copy = shutil.copytree(runs, tmp_path / "copy")
    for seed, changes in ((1, {"status": "diverged"}), (2, {"weights": None})):
        path = copy / f"seed={seed}" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    ensemble(copy / "e", copy)
    lines = capsys.readouterr().err
    assert f"left out 1 folder without weights: {copy}/seed=2" in lines and "seed=1" in lines
    # The ensemble itself is no member of the next one
    ensemble(copy / "f", copy)
    assert f"left out 1 folder of other tasks: {copy}/e" in capsys.readouterr().err


def test_without_a_usable_run_the_error_says_why(runs, tmp_path):
    copy = shutil.copytree(runs / "seed=0", tmp_path / "copy")
    path = copy / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": None}))
    with pytest.raises(ConfigError, match="no run has weights"):
        ensemble(tmp_path / "e", copy)
    with pytest.raises(ConfigError, match="runs: no run found"):
        ensemble(tmp_path / "e", tmp_path / "nothing")


def test_members_must_have_the_same_data(runs, tmp_path):
    other = train(tmp_path / "other", data="gaussian", model="linear")
    with pytest.raises(ConfigError, match="are on different data"):
        ensemble(tmp_path / "e", [runs / "seed=0", other])


def test_data_that_changed_since_the_training_are_refused(runs, tmp_path, monkeypatch):
    from runner.tasks.ensembling import outputs

    copy = shutil.copytree(runs / "seed=0", tmp_path / "copy")
    shutil.rmtree(copy / "predictions")
    load = outputs.load

    def changed(config):
        found = load(config)
        parts = {name: replace(part, content="0" * 32) for name, part in found.fingerprint.parts.items()}
        return replace(found, fingerprint=replace(found.fingerprint, parts=parts))

    monkeypatch.setattr(outputs, "load", changed)
    with pytest.raises(DataError, match="have changed since the training"):
        ensemble(tmp_path / "e", copy)


def test_a_loss_without_probabilities_is_refused(runs, tmp_path):
    other = train(tmp_path / "other", loss="hinge")
    with pytest.raises(ConfigError, match="trained with loss=hinge, which has no probabilities"):
        ensemble(tmp_path / "e", [runs / "seed=0", other])


@pytest.mark.parametrize("words", [["task.members=beste:2"], ["task.members=best:0"], ["task.combine=mean"],
                                   ["task.temperature=0"], ["model=linear"]])  # fmt: skip
def test_wrong_words_are_one_line(runs, tmp_path, words):
    with pytest.raises(ConfigError):
        ensemble(tmp_path / "e", runs, *words)


def test_a_uniform_soup_has_the_mean_weights_and_new_statistics(tuned, tmp_path):
    folder = ensemble(tmp_path / "soup", tuned, "task.combine=weights")
    [entry] = record(folder)["members"]
    place = folder / entry["path"]
    found = load_file(place / entry["weights"])
    states = [load_file(tuned / f"seed={s}" / result(tuned / f"seed={s}")["weights"]) for s in range(3)]
    for name, tensor in found.items():
        mean = sum(state[name].double() for state in states) / 3
        if "running_" in name:
            assert not torch.allclose(tensor.double(), mean, atol=1e-7)
        elif tensor.is_floating_point():
            assert torch.allclose(tensor.double(), mean, atol=1e-6)
    assert torch.allclose(evaluated(folder), val_log_p(folder), atol=1e-5)
    # An ordinary run folder for everything that takes one
    assert torch.equal(evaluated(place), evaluated(folder))
    train(tmp_path / "next", init_from=str(place), **GENTLE)


def test_the_statistics_of_a_soup_are_those_of_its_training_data(tuned, tmp_path):
    folder = ensemble(tmp_path / "soup", tuned, "task.combine=weights")
    trained = runner.load(folder)
    config = trained.config
    assert config["augment"] == {} and config["norm"]["name"] == "batch"
    from runner.assemble.load_data import load

    pixels = load(config).data.train.pixels
    norm = next(module for module in trained.model.modules() if isinstance(module, torch.nn.BatchNorm1d))
    seen = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        trained.model(trained.preprocess(pixels))
    # The mean over batches, the last of which is smaller, is near that over the examples
    assert torch.allclose(seen[0].mean(0), norm.running_mean, atol=0.02)
    assert torch.allclose(seen[0].var(0), norm.running_var, rtol=0.1)


def test_a_greedy_soup_is_not_worse_than_the_best_model_where_it_was_selected(tuned, tmp_path):
    folder = ensemble(tmp_path / "soup", tuned, "task.combine=weights", "task.members=greedy")
    about = record(folder)["about"]
    assert "greedy soup of" in about["selected_by"] and about["made_of"] == "weights"
    from runner.ensembles.calibration import disjoint_halves

    labels = load_file(tuned / "seed=0" / "predictions" / "val.safetensors")["labels"]
    half = disjoint_halves(labels.numpy(), 0)[0]
    right = {path: (val_log_p(path).argmax(1) == labels)[half].sum() for path in (folder, *sorted(tuned.iterdir()))}
    assert right.pop(folder) >= max(right.values())


def test_a_soup_of_one_model_is_the_model(tuned, tmp_path):
    folder, pixels = ensemble(tmp_path / "soup", tuned / "seed=1", "task.combine=weights"), images()
    expected = runner.load(tuned / "seed=1").predict(pixels).probabilities
    assert torch.equal(runner.load(folder).predict(pixels).probabilities, expected)


def test_a_soup_of_models_that_began_with_different_weights_is_refused_with_the_barrier(tmp_path):
    for seed in range(2):
        train(tmp_path / f"seed={seed}", seed=seed, epochs=8, **{"model.hidden": [32, 32], "optim.lr": 0.1})
    with pytest.raises(ConfigError, match=r"the nll rises by \d+\.\d+ \(loss barrier\)"):
        ensemble(tmp_path / "soup", [tmp_path / "seed=0", tmp_path / "seed=1"], "task.combine=weights")
    assert not (tmp_path / "soup").exists()


def test_between_convex_models_there_is_no_barrier(tmp_path):
    for seed in range(2):
        train(tmp_path / f"seed={seed}", seed=seed, model="linear")
    folder = ensemble(tmp_path / "soup", [tmp_path / "seed=0", tmp_path / "seed=1"], "task.combine=weights")
    assert len(record(folder)["members"]) == 1


def test_one_seed_is_one_beginning(tmp_path):
    for rate in (0.01, 0.02):
        train(tmp_path / f"lr={rate}", **{"optim.lr": rate})
    ensemble(tmp_path / "soup", [tmp_path / "lr=0.01", tmp_path / "lr=0.02"], "task.combine=weights")


@pytest.mark.parametrize("changes", [{"model.hidden": [9]}, {"activation": "tanh"}, {"preprocess": "scale01"}])
def test_a_soup_of_different_architectures_is_refused(runs, tmp_path, changes):
    other = train(tmp_path / "other", **changes)
    with pytest.raises(ConfigError, match="have different architectures"):
        ensemble(tmp_path / "soup", [runs / "seed=0", other], "task.combine=weights")


def test_a_copy_of_a_soup_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"task.copy: got true, must be false with task.combine=weights"):
        ensemble(tmp_path / "soup", runs, "task.combine=weights", "task.copy=true")


def test_an_error_while_writing_leaves_nothing_behind(runs, tmp_path, monkeypatch):
    from runner.errors import StorageError
    from runner.tasks.ensembling import folder as module

    def fail(*_):
        raise StorageError("disk full")

    monkeypatch.setattr(module, "write_manifest", fail)
    with pytest.raises(StorageError):
        ensemble(tmp_path / "e", runs, "task.copy=true")
    assert not (tmp_path / "e").exists()


def test_the_snapshots_of_a_run_are_members(tmp_path):
    cycles = {"average": "snapshots", "scheduler": "cosine_restarts", "scheduler.cycle": "1epochs",
              "scheduler.growth": 1, "scheduler.warmup": "0%"}  # fmt: skip
    run = train(tmp_path / "run", **cycles)
    folder, pixels = ensemble(tmp_path / "e", run), images()
    entries = record(folder)["members"]
    assert [each["weights"] for each in entries] == result(run)["snapshots"] and len(entries) == 3
    assert list(record(folder)["about"]["models"]) == [f"run/step={step}" for step in (10, 20, 30)]
    members = []
    for number, each in enumerate(entries):
        alone = shutil.copytree(run, tmp_path / f"alone{number}")
        changes = {"weights": each["weights"], "snapshots": None}
        found = {k: v for k, v in (result(alone) | changes).items() if v is not None or k != "snapshots"}
        (alone / "result.json").write_text(json.dumps(found))
        members.append(runner.load(alone).predict(pixels).probabilities)
    assert torch.allclose(runner.load(folder).predict(pixels).probabilities, sum(members) / 3, atol=1e-6)


def test_a_sweep_over_ways_to_combine_has_an_ensemble_in_each_trial(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / "trial.log").write_text("")
    trial = replace(job("task=ensemble", f"runs={runs}", "figures=never"), folder=str(folder), is_trial=True)
    assert start(trial) == 0
    assert (folder / "ensemble.json").is_file() and result(folder)["scores"]["val"]["best"]["accuracy"] > 0


def test_an_ensemble_has_the_name_that_is_given(runs, tmp_path):
    words = ("task=ensemble", f"runs={runs}", "figures=never", f"outputs={tmp_path / 'o'}")
    assert start(job(*words)) == start(job(*words)) == start(job(*words, "name=mine")) == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [
        f"ensemble-{runs.name}", f"ensemble-{runs.name}-2", "mine"]  # fmt: skip


def test_a_run_beside_an_ensemble_is_not_to_be_compared_with_it(runs, tmp_path, capsys):
    outputs = tmp_path / "o"
    assert start(job("task=ensemble", f"runs={runs}", "figures=never", f"outputs={outputs}")) == 0
    words = command_line_words(small(QUICK))
    assert start(job(*words, f"outputs={outputs}", "name=run")) == 0
    assert "task=compare" not in capsys.readouterr().out
