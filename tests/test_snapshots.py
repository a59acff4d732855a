"""`average=snapshots`: what a run keeps and scores, after a kill too, and what happens to the files later."""

import json
import shutil

import numpy as np
import pytest
import torch
from running import events, job, killed_in_step, metrics, result, run_in_child, starter
from torch import nn

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.__main__ import main
from runner.assemble.checkpoint_size import checkpoint_size
from runner.assemble.load_data import load as load_data
from runner.engine.saving import checkpoint, storage
from runner.engine.snapshots import MeanPrediction, Snapshots
from runner.errors import CheckpointError
from runner.tasks import start
from runner.tasks.trained.members import members_of
from runner.tasks.trained.read_run import read_run, restore_predictor
from runner.tasks.trained.saved_run import known_facts, read_member

STEPS, ENDS = 60, [12, 24, 36, 48, 60]
WORDS = (
    *("model=mlp", "model.hidden=[16]", "augment=[]", "probe=[]", "figures=never", f"steps={STEPS}", "test=end"),
    *("average=snapshots", "scheduler=cosine_restarts", "validate_every=8steps", "checkpoint_every=7steps"),
)


def run(folder, *more):
    return starter(folder, *WORDS, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(run(folder)) == 0
    return folder


def probabilities(folder, split="val"):
    """Return the probabilities (M, N, C) of the snapshots on a split, in float64, and the labels."""
    saved = read_run(job(f"run={folder}", "task=predict"), task="predict")
    found = []
    for member in members_of(folder):
        if "snapshot" in member.roles:
            run = read_member(folder, job("task=predict"), key="run", weights=member.file)
            predictor = restore_predictor(run, known_facts(saved), threads=False)
            images, labels = examples(saved.config, split)
            with torch.no_grad():
                logits = predictor.model(predictor.preprocess(images))
            found.append(torch.softmax(logits.double(), 1).numpy())
    return np.stack(found), labels.numpy()


def examples(config, split):
    data = load_data(config).data
    part = data.val if split == "val" else data.test()
    return part.fetch(torch.arange(len(part.labels))), part.labels


def test_the_snapshots_are_the_weights_at_the_ends_of_the_cycles(whole, tmp_path):
    assert [int(name[12:20]) for name in result(whole)["snapshots"]] == ENDS
    assert [each.step for each in members_of(whole) if "snapshot" in each.roles] == ENDS
    for end in ENDS[:2]:
        # The same run, as it is after so many steps of its schedule
        folder = tmp_path / str(end)
        assert run_in_child(killed_in_step(end + 1, run(folder, "checkpoint_every=1steps"))) == -9
        at_end = checkpoint.load(folder, step=end)
        kept = checkpoint.read_weights(checkpoint.weights_file(whole, end))
        assert kept.keys() == at_end.weights.keys()
        assert all(torch.equal(kept[name], tensor) for name, tensor in at_end.weights.items())


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_ensemble_has_the_mean_of_the_probabilities(whole, split):
    members, labels = probabilities(whole, split)
    mean = members.mean(0)
    scores = result(whole)["scores"][split]
    assert scores["ensemble"]["accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    assert scores["ensemble"]["nll"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), rel=1e-5)
    assert scores["ensemble"]["members"] == len(ENDS) and scores["ensemble"]["step"] == STEPS
    newest = members[-1]
    assert scores["snapshot"]["accuracy"] == pytest.approx((newest.argmax(1) == labels).mean())
    assert scores["snapshot"]["nll"] == pytest.approx(-np.log(newest[np.arange(len(labels)), labels]).mean(), rel=1e-5)


def test_each_validation_scores_the_snapshots_so_far(whole):
    members, labels = probabilities(whole)
    logged = {step: float(value) for step, tag, value in metrics(whole) if tag == "val/ensemble/accuracy"}
    assert list(logged) == [16, 24, 32, 40, 48, 56, 60]
    for step, value in logged.items():
        count = sum(end <= step for end in ENDS)
        assert value == pytest.approx((members[:count].mean(0).argmax(1) == labels).mean())
    assert {tag for _, tag, _ in events(whole)} >= {"4 val/ensemble/accuracy", "4 val/snapshot/nll"}


def test_training_and_the_single_model_are_as_without_snapshots(whole, tmp_path):
    folder = tmp_path / "run"
    assert run_in_child(run(folder, "average=none")) == 0
    with_them = [row for row in metrics(whole) if "/snapshot/" not in row[1] and "/ensemble/" not in row[1]]
    assert metrics(folder) == with_them
    assert result(folder)["scores"]["val"]["best"] == result(whole)["scores"]["val"]["best"]
    assert "snapshots" not in result(folder)


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("step", [12, 13, 25, 31, 50, 60])
@pytest.mark.parametrize("dates", ["checkpoint_every=7steps", "checkpoint_every=auto"])
def test_a_killed_run_ends_with_the_same_snapshots_and_scores(whole, tmp_path, step, dates):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(step, run(folder, dates))) == -9
    assert run_in_child(lambda: start(job(f"resume={folder}"))) == 0
    # The rate is logged with each checkpoint, too
    one, other = ([row for row in metrics(each) if row[1] != "train/lr"] for each in (folder, whole))
    assert one == other
    assert result(folder)["scores"] == result(whole)["scores"]
    for end in ENDS:
        one, other = (checkpoint.read_weights(checkpoint.weights_file(at, end)) for at in (folder, whole))
        assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


def test_a_damaged_snapshot_sends_a_run_back_to_a_checkpoint_before_it(tmp_path, capfd):
    folder = tmp_path / "run"
    words = ("validate_every=20steps", "checkpoint_every=10steps")
    assert run_in_child(run(tmp_path / "other", *words)) == 0
    assert run_in_child(killed_in_step(22, run(folder, *words))) == -9
    path = checkpoint.weights_file(folder, 12)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    capfd.readouterr()
    assert start(job(f"resume={folder}")) == 0
    assert "00000012.weights.safetensors" in (said := capfd.readouterr().err) and "going back to step 10" in said
    assert metrics(folder) == metrics(tmp_path / "other")
    assert result(folder)["snapshots"] != [] and members_of(folder)


@pytest.mark.ci_slice
@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best+last", "best", "none"])
def test_what_keep_leaves(tmp_path, keep):
    folder = tmp_path / "run"
    assert run_in_child(run(folder, f"keep={keep}")) == 0
    best = result(folder)["scores"]["val"]["best"]["step"]
    names = {int(name[:8]) for name in storage.names(folder / "checkpoints")}
    states = [name for name in storage.names(folder / "checkpoints") if ".state." in name]
    assert names == (set() if keep == "none" else {best, *ENDS})
    assert len(states) == (1 if keep == "best+last" else 0)
    if keep == "none":
        assert result(folder).get("snapshots") is None
        with pytest.raises(CheckpointError, match="has no weights"):
            members_of(folder)
    else:
        assert len(members_of(folder)) == len({best, *ENDS})


def test_clean_leaves_snapshots_with_the_selected_weights_and_removes_them_with_these(whole, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    assert main(["task=clean", f"runs={folder}", "task.delete=true"]) == 0
    assert [each.step for each in members_of(folder) if "snapshot" in each.roles] == ENDS
    assert not [name for name in storage.names(folder / "checkpoints") if ".state." in name]
    assert main(["task=clean", f"runs={folder}", "task.keep=none", "task.delete=true"]) == 0
    assert storage.names(folder / "checkpoints") == []
    assert result(folder)["weights"] is None and "snapshots" not in result(folder)


def test_a_run_that_stops_before_its_first_snapshot_says_so(tmp_path, capfd):
    folder = tmp_path / "run"
    words = ("average.at=[100%]", "patience=1", "optim.lr=1e-9", "monitor=val/accuracy", "validate_every=4steps")
    assert run(folder, *words)() == 0
    assert result(folder)["status"] == "stopped" and result(folder)["snapshots"] == []
    assert "no snapshots: the run ended before the first one was due" in capfd.readouterr().out
    assert "ensemble" not in result(folder)["scores"]["val"]
    assert [each.roles for each in members_of(folder)] != []


def test_the_summary_names_dates_and_the_table_the_ensemble(tmp_path, capfd):
    assert run(tmp_path / "run", "average.at=[25%,55steps]")() == 0
    out, err = capfd.readouterr()
    assert "keeps 2 snapshots, after step 15, 55" in err
    assert "validation, ensemble of 2" in out and "validation, last snapshot" in out


def test_the_recipe_keeps_a_snapshot_of_each_of_five_cycles():
    config = job("recipe=snapshot_ensemble").config
    assert (config["average"]["name"], config["scheduler"]["name"]) == ("snapshots", "cosine_restarts")
    assert checkpoint_size(config, load_data(config).data).snapshots == 5


def test_a_snapshot_that_a_result_names_must_be_one_of_a_manifest(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    saved = json.loads((folder / "result.json").read_text())
    for name in ("checkpoints/00000012.state.safetensors", "checkpoints/00000011.weights.safetensors", "result.json"):
        (folder / "result.json").write_text(json.dumps({**saved, "snapshots": [name]}))
        with pytest.raises(CheckpointError):
            members_of(folder)


def batches_of(seed, loss_has_probabilities=True):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    return [(logits, logits.log_softmax(1) if loss_has_probabilities else None, torch.arange(6) % 4)]


def test_one_member_is_its_own_mean_and_copies_of_it_change_nothing():
    mean, own = MeanPrediction(), batches_of(0)
    mean.add(1, own)
    assert all(torch.equal(one, other) for one, other in zip(mean.batches[0], own[0], strict=True))
    mean.add(2, batches_of(0)), mean.add(3, batches_of(0))
    assert torch.equal(mean.batches[0][0], own[0][0])
    assert torch.equal(mean.batches[0][1].argmax(1), own[0][1].argmax(1))
    torch.testing.assert_close(mean.batches[0][1], own[0][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_several_members(count):
    mean, every = MeanPrediction(), [batches_of(seed)[0] for seed in range(count)]
    for step, each in enumerate(every):
        mean.add(step, [each])
    logits, log_p, _ = mean.batches[0]
    torch.testing.assert_close(logits, torch.stack([each[0] for each in every]).mean(0))
    torch.testing.assert_close(log_p.exp(), torch.stack([each[1].exp() for each in every]).mean(0))


def test_a_loss_without_probabilities_has_the_mean_of_the_logits():
    mean = MeanPrediction()
    mean.add(1, batches_of(0, False)), mean.add(2, batches_of(1, False))
    assert mean.batches[0][1] is None
    torch.testing.assert_close(mean.batches[0][0], (batches_of(0)[0][0] + batches_of(1)[0][0]) / 2)


def test_snapshots_after_the_step_of_a_run_do_not_count():
    """A run that diverged is set back to the step before it."""
    model = nn.Linear(2, 2)
    snapshots = Snapshots(model, [2, 4])
    for step in range(1, 5):
        nn.init.constant_(model.weight, step)
        snapshots.take(model, step)
    assert snapshots.until(1) == [] and snapshots.until(3) == [2] and snapshots.until(4) == [2, 4]
    assert snapshots.of(2)["model.weight"].unique().item() == 2
    assert snapshots.member_of(4).weight.unique().item() == 4 and snapshots.member_of(2).weight.unique().item() == 2
