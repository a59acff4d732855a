"""The files of a run and its accuracy."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from running import MLP, ROOT, job, metrics, result

import runner.tasks.train  # noqa: F401
from runner.assemble import assemble
from runner.engine.saving.checkpoint import read_weights
from runner.engine.train import update
from runner.errors import CheckpointError, ConfigError, DataError, Diverged
from runner.tasks import start


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("run") / "run"
    assert start(job(*MLP, "epochs=3", "figures=never", "note=does it run?", f"hydra.run.dir={where}")) == 0
    return where


def test_a_run_leaves_what_it_promises(folder):
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "overrides.yaml", "environment.json", "metrics.jsonl", "result.json", "checkpoints"} <= names
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["model"], config["epochs"]) == ({"name": "mlp", "hidden": [16]}, 3.0)
    assert "model=mlp" in yaml.safe_load((folder / "overrides.yaml").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    assert {"git", "versions", "device", "threads", "environment", "started", "argv"} <= environment.keys()


def test_the_result_says_how_the_run_ended(folder):
    found = result(folder)
    assert found["schema"] == 2
    assert (found["status"], found["exit"], found["steps"], found["epochs"]) == ("done", 0, 57, 3.0)
    assert found["scores"]["val"].keys() == {"best", "last"}
    assert found["scores"]["val"]["last"].keys() == {"accuracy", "loss", "nll", "step"}
    metrics = {"aurc", "balanced_accuracy", "brier", "ece", "f1_macro", "top5"}
    assert found["scores"]["test"].keys() == {"accuracy", "loss", "nll", *metrics}
    assert found["test_reads"] == 1
    assert 0.3 < found["scores"]["test"]["accuracy"] <= 1
    assert read_weights(folder / found["weights"]).keys() >= {"model.hidden.fc1.linear.weight", "preprocess.mean"}


def test_every_step_is_logged_once_and_each_validation_too(folder):
    rows = metrics(folder)
    assert [step for step, tag, _ in rows if tag == "train/loss"] == list(range(1, 58))
    assert [step for step, tag, _ in rows if tag == "val/accuracy"] == [19, 38, 57]
    assert {step for step, tag, _ in rows if tag.startswith("ratio/l2/")} == {1, 50}


def test_evaluate_gives_the_test_score_again(folder, capfd):
    before = result(folder)
    assert start(job("task=evaluate", f"run={folder}")) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[0] == f"{folder}: {before['weights'].rpartition('/')[2]}"
    assert f"{before['scores']['test']['accuracy']:.4f}" in out
    after = result(folder)
    assert after["test_reads"] == before["test_reads"] + 1
    assert after["scores"] == before["scores"]


def test_evaluate_reads_other_splits_and_other_predictions_without_the_test_split(folder, capfd):
    reads = result(folder)["test_reads"]
    assert start(job("task=evaluate", "task.split=val", "predict=tta", f"run={folder}")) == 0
    assert "val" in capfd.readouterr().out
    assert result(folder)["test_reads"] == reads


@pytest.mark.parametrize(
    ("overrides", "error", "line"),
    [
        (["optim.lr=-1"], ConfigError, "optim.lr: got -1, must be > 0"),
        (["device=cuda"], ConfigError, "device: got 'cuda', must be auto or one that this machine has (cpu)"),
        (["model=mlp", "model.hidden=[0]"], ConfigError, "model.hidden[0]: got 0, must be >= 1"),
        (["resume=nowhere"], ConfigError, "resume: got 'nowhere', must be a run folder (it has no config.yaml)"),
        (["task=evaluate"], ConfigError, "run: got null; expected a run folder: task=evaluate run=outputs/<name>"),
        (["data=imagefolder", "data.root=nowhere"], DataError, "nowhere"),
        (["plugins=[no_such_module]"], ConfigError, "plugins: cannot import 'no_such_module'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(overrides, error, line, tmp_path, monkeypatch):
    if "device=cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        start(job(*overrides))
    assert str(caught.value).startswith(line) or line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_other_settings(folder):
    keys = (
        "compile, cuda_graphs, device, init_download, memory_format, outputs, plugins, rerun, resume_data, "
        "resume_numerics, threads, tracker"
    )
    can = f"{keys}, and paths as in data.root"
    with pytest.raises(ConfigError, match=rf"optim\.lr: cannot be changed with resume=\.\.\. \(allowed: {can}\)"):
        start(job(f"resume={folder}", "optim.lr=0.5"))


def test_a_checkpoint_of_another_model_is_refused(folder, tmp_path):
    other = tmp_path / "other"
    assert start(job("model=mlp", "model.hidden=[8]", "steps=2", "figures=never", f"hydra.run.dir={other}")) == 0
    (other / "config.yaml").write_text((folder / "config.yaml").read_text())
    (other / "result.json").write_text((other / "result.json").read_text().replace('"done"', '"running"'))
    with pytest.raises(CheckpointError, match="of another model"):
        start(job(f"resume={other}"))


def test_the_same_name_twice_gives_two_folders(tmp_path):
    for _ in range(2):
        start(job(*MLP, "steps=1", "figures=never", f"outputs={tmp_path}", "name=twin"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["twin", "twin-2"]


def test_a_diverging_run_says_so_and_keeps_its_result(tmp_path):
    with pytest.raises(Diverged, match=r"diverged at step 2: the output of head .Linear. is not finite"):
        start(job(*MLP, "norm=none", "optim.lr=1e30", "epochs=2", "figures=never", f"hydra.run.dir={tmp_path / 'run'}"))
    found = result(tmp_path / "run")
    assert (found["status"], found["exit"]) == ("diverged", 5)


def test_a_diverged_state_is_never_saved(tmp_path):
    words = [
        "norm=none",
        "optim.lr=1e30",
        "steps=60",
        "checkpoint_every=1step",
        "log_every=50",
        "validate_every=60steps",
    ]
    with pytest.raises(Diverged):
        start(job("model=mlp", *words, "figures=never", f"hydra.run.dir={tmp_path / 'run'}"))
    for path in (tmp_path / "run" / "checkpoints").glob("*.json"):
        assert int(path.stem) < 5, "saved after the loss had stopped being finite"


def weights_after(steps, *overrides):
    experiment = assemble(job("model=mlp", "norm=none", "model.hidden=[16]", "augment=[crop,hflip]", *overrides).config)
    learner, recipe = experiment.learner, experiment.recipe
    for images, labels in experiment.batches.stream(0, steps):
        learner.set_lr()
        update(recipe, learner, *recipe.mix(images, labels, learner.step))
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


def test_four_micro_batches_of_16_equal_a_batch_of_64():
    one = weights_after(25, "data.batch_size=64")
    four = weights_after(25, "data.batch_size=16", "accumulate=4")
    assert (one - four).abs().max() < 2e-6
    assert (one - weights_after(25, "data.batch_size=16", "accumulate=4", "seed=1")).abs().max() > 0.1


def test_early_stopping_stops_and_selects_the_best(tmp_path):
    where = tmp_path / "run"
    start(job(*MLP, "optim.lr=1e-9", "patience=2", "epochs=9", "figures=never", f"hydra.run.dir={where}"))
    found = result(where)
    assert found["status"] == "stopped"
    assert found["steps"] < 9 * 19
    assert found["steps"] == found["scores"]["val"]["best"]["step"] + 2 * 19


@pytest.mark.ci_slice
@pytest.mark.slow
def test_precision_changes_the_arithmetic_and_still_learns(tmp_path):
    seen = {}
    for precision in ("fp32", "bf16", "fp16"):
        where = tmp_path / precision
        start(job(*MLP, "epochs=4", f"precision={precision}", "figures=never", f"hydra.run.dir={where}"))
        seen[precision] = result(where)["scores"]["val"]["last"]
    assert all(scores["accuracy"] > 0.6 for scores in seen.values())
    assert len({scores["loss"] for scores in seen.values()}) == 3


@pytest.mark.ci_slice
@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "runner", *MLP, "epochs=5000", "name=long", "figures=never"]
    child = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=allow_interrupts
    )
    for line in child.stderr:
        if line.startswith("epoch 2/"):
            child.send_signal(signal.SIGINT)
            break
    _, rest = child.communicate(timeout=60)
    assert child.returncode == 130
    assert rest.splitlines()[-1] == "interrupted; resume with: python -m runner resume=outputs/long"
    found = result(tmp_path / "outputs" / "long")
    assert (found["status"], found["exit"]) == ("interrupted", 130)
    assert found["steps"] >= 2 * 19


def allow_interrupts():
    """Make a child hear SIGINT, which shells make background processes ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
