"""A diverged run ends with exit code 5 and one line, and its last good checkpoint is intact."""

import math
from dataclasses import replace

import pytest
import torch
from planted import LAYER, NORM, PLANTS, WEIGHT, planted
from running import checkpoint_checksums, command, events, job, metrics, result

import runner.tasks.train as task
from runner.engine.saving import checkpoint
from runner.errors import Diverged
from runner.tasks import start

WORDS = (
    "model=mlp",
    "model.hidden=[16,16]",
    "steps=40",
    "log_every=7",
    "validate_every=10steps",
    "checkpoint_every=10steps",
    "figures=never",
)
STEP, KEPT = 25, 20  # steps done before the bad one, the checkpoint before that
SAID = {
    "input": "diverged at step 26: 1 of its 64 input images are not finite; the weights are those before this step",
    "loss": "diverged at step 26: the loss is not finite (the model's output is); the weights are those before this",
    "gradient": f"diverged at step 26: the gradient of {WEIGHT} is not finite (the loss is); the weights are those",
    "output": f"diverged at step 26: the output of {LAYER} (Linear) is not finite (its input and the weights are); the",
    "weight": f"diverged at step 26: the weight {WEIGHT} was not finite before this step",
    "statistics": f"diverged at step 30: train_eval/loss is nan after this step: buffer {NORM}.running_mean is not",
    "lr": "diverged at step 26: the learning rate of the tensors in 'decay' is nan; the weights are those before this",
    "score": "diverged at step 30: train_eval/loss is nan after this step: all module outputs were finite when the",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of the undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert start(job(*WORDS, f"hydra.run.dir={folder}")) == 0
    return folder


def spoil(monkeypatch, where, step):
    assemble = task.assemble
    monkeypatch.setattr(task, "assemble", lambda *args, **more: planted(assemble(*args, **more), where, math.nan, step))


@pytest.mark.parametrize("where", PLANTS)
def test_the_line_names_step_and_place_and_the_checkpoint_before_it_is_whole(
    where, whole, tmp_path, monkeypatch, capfd
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil(patch, where, STEP + 4 if where == "score" else STEP)
        for words in [(*WORDS, f"hydra.run.dir={folder}"), (f"resume={folder}",)]:
            capfd.readouterr()
            with pytest.raises(Diverged) as caught:
                start(job(*words))
            printed = str(caught.value)
            assert printed.startswith(SAID[where])
            assert printed.endswith(f"; the checkpoint of step {KEPT} is kept")
            assert "\n" not in printed
            found = result(folder)
            assert (found["status"], found["exit"], found["reason"]) == ("diverged", 5, printed)
            assert found["steps"] == (30 if where in ("statistics", "score") else STEP)
            again = (
                "resumes after step 20 of 40\n  it diverged and will diverge again at the same step, unless device, "
            )
            assert (again in capfd.readouterr().err) == (words[0] == f"resume={folder}")
    snapshot = checkpoint.load(folder)
    assert (snapshot.step, snapshot.notes) == (KEPT, [])
    assert all(torch.isfinite(tensor).all() for tensor in snapshot.weights.values() if tensor.is_floating_point())
    assert start(job(f"resume={folder}")) == 0, "without what was planted the run goes on"
    assert checkpoint_checksums(folder) == checkpoint_checksums(whole)
    assert metrics(folder) == metrics(whole)
    assert events(folder) == events(whole)


def test_the_log_ends_with_the_bad_step(tmp_path, monkeypatch):
    spoil(monkeypatch, "loss", STEP)
    with pytest.raises(Diverged):
        start(job(*WORDS, f"hydra.run.dir={tmp_path / 'run'}"))
    losses = [(step, value) for step, tag, value in metrics(tmp_path / "run") if tag == "train/loss"]
    assert [step for step, _ in losses] == list(range(1, STEP + 2))
    assert [value for _, value in losses].index("NaN") == STEP


def test_the_last_good_checkpoint_is_not_rotated_away(tmp_path, monkeypatch):
    spoil(monkeypatch, "output", STEP)
    words = [*WORDS[:3], "checkpoint_every=1steps", "log_every=100", "validate_every=40steps", "figures=never"]
    with pytest.raises(Diverged, match=f"the checkpoint of step {STEP} is kept"):
        start(job(*words, f"hydra.run.dir={tmp_path / 'run'}"))
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.json"))
    assert left == ["00000024.json", "00000025.json"]


def test_a_run_that_diverges_at_once_says_that_there_is_no_checkpoint(tmp_path, monkeypatch):
    spoil(monkeypatch, "input", 0)
    with pytest.raises(Diverged, match=r"^diverged at step 1: .*; there is no checkpoint before it$"):
        start(job(*WORDS, f"hydra.run.dir={tmp_path / 'run'}"))


DIVERGING = ("model=mlp", "model.hidden=[16]", "norm=none", "figures=never", "checkpoint_every=1steps")


def test_a_process_ends_with_one_line_and_exit_code_5(tmp_path):
    done = command(*DIVERGING, "steps=60", "optim.lr=1e30", "name=run", cwd=tmp_path)
    assert done.returncode == 5
    line = done.stderr.splitlines()[-1]
    assert line == (
        "runner: error: diverged at step 2: the output of head (Linear) is not finite (its input and the weights are); "
        "the weights are those before this step; a smaller optim.lr may help; the checkpoint of step 1 is kept"
    )
    assert done.stderr.count("runner:") == 1
    assert result(tmp_path / "outputs" / "run")["reason"] == line.removeprefix("runner: error: ")


def test_a_sweep_goes_on_after_a_trial_that_diverges(tmp_path):
    words = ("-m", *DIVERGING, "steps=9", "optim.lr=1e30,0.1", "sweep=s")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "diverged at step 2: the output of head (Linear) is not finite" in done.stderr
    found = [result(path.parent) for path in tmp_path.glob("outputs/sweeps/s/*/result.json")]
    assert sorted((each["status"], each["exit"]) for each in found) == [("diverged", 5), ("done", 0)]


def test_a_replay_needs_no_settings_of_its_own(tmp_path, monkeypatch):
    """With mixup, dropout, accumulation and bf16 the step that is made again is the one that went wrong."""
    more = ["mix=mixup", "regularizer=[dropout,l2]", "accumulate=2", "precision=bf16", "augment=[crop]", "clip=1"]
    seen = []

    def watch(experiment):
        experiment = planted(experiment, "output", math.nan, STEP)
        forward = experiment.recipe.forward

        def watched(model, images):
            logits = forward(model, images)
            if experiment.learner.step == STEP:
                seen.append(images)
            return logits

        return replace(experiment, recipe=replace(experiment.recipe, forward=watched))

    assemble = task.assemble
    monkeypatch.setattr(task, "assemble", lambda *args, **rest: watch(assemble(*args, **rest)))
    with pytest.raises(Diverged, match=rf"the output of {LAYER} \(Linear\) is not finite"):
        start(job(*WORDS, *more, f"hydra.run.dir={tmp_path / 'run'}"))
    assert len(seen) == 2, "two micro-batches of the step; the replay ends within its first forward"
