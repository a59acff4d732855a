"""`keep`: which weights files a finished run leaves, and what then can be done with it."""

import json

import pytest
from running import job, result

from runner.__main__ import main
from runner.door.arguments import read_arguments
from runner.door.command import checked_command
from runner.door.jobs import trial_job, variant_jobs
from runner.engine.saving import checkpoint, storage
from runner.engine.saving.keep import keep_only
from runner.tasks import start

WORDS = ("model=mlp", "model.hidden=[4]", "augment=[]", "probe=[]", "figures=never", "monitor=val/loss", "optim.lr=0.5")
WORDS = (*WORDS, "norm=none", "average=none", "scheduler=constant", "steps=30", "validate_every=4steps", "test=never")


def trained(tmp_path, keep, *words):
    """Train a run and return its folder and the names of its checkpoint files."""
    folder = tmp_path / keep
    given = {word.partition("=")[0]: word for word in (*WORDS, *words, f"keep={keep}", f"hydra.run.dir={folder}")}
    assert start(job(*given.values())) == 0
    return folder, storage.names(folder / "checkpoints")


def scores(tmp_path, capfd, folder):
    capfd.readouterr()
    code = main(["task=evaluate", "task.split=val", f"run={folder}", f"outputs={tmp_path}"])
    return code, capfd.readouterr()


@pytest.mark.parametrize("dates", ["checkpoint_every=1steps", "checkpoint_every=auto"])
def test_the_best_weights_alone_stay_and_score_as_they_did(tmp_path, capfd, dates):
    both, _ = trained(tmp_path, "best+last", dates)
    best, names = trained(tmp_path, "best", dates)
    step = result(best)["scores"]["val"]["best"]["step"]
    assert names == [f"{step:08d}.json", f"{step:08d}.weights.safetensors"]
    assert result(best)["weights"] == result(both)["weights"]
    assert len(storage.names(both / "checkpoints")) > 2
    (code, one), (_, other) = (scores(tmp_path, capfd, folder) for folder in (best, both))
    assert code == 0
    assert one.out.split("accuracy")[1].splitlines()[:3] == other.out.split("accuracy")[1].splitlines()[:3]
    # The saved state is gone with the rest, so no run resumes from these weights
    assert checkpoint.load(best) is None


def test_the_last_step_can_be_the_best(tmp_path):
    folder, names = trained(tmp_path, "best", "optim.lr=0.001")
    assert result(folder)["scores"]["val"]["best"]["step"] == 30
    assert names == ["00000030.json", "00000030.weights.safetensors"]
    checkpoint.read_weights(folder / result(folder)["weights"])
    assert "state" not in json.dumps(json.loads((folder / "checkpoints" / names[0]).read_text())["files"])


@pytest.mark.parametrize("dates", ["checkpoint_every=1steps", "checkpoint_every=auto"])
def test_the_best_weights_and_the_last_checkpoint_stay_and_nothing_between_them(tmp_path, dates):
    folder, names = trained(tmp_path, "best+last", dates)
    best = result(folder)["scores"]["val"]["best"]["step"]
    assert best < 28
    last = ["00000030.json", "00000030.state.safetensors", "00000030.weights.safetensors"]
    assert names == [f"{best:08d}.json", f"{best:08d}.weights.safetensors", *last]
    # The run is complete: it can be extended and its best weights can be read
    assert checkpoint.load(folder).step == 30
    checkpoint.read_weights(folder / result(folder)["weights"])


def test_the_last_checkpoint_is_the_best_one(tmp_path):
    _, names = trained(tmp_path, "best+last", "optim.lr=0.001", "checkpoint_every=10steps")
    assert names == ["00000030.json", "00000030.state.safetensors", "00000030.weights.safetensors"]


def test_where_the_last_checkpoint_is_damaged_all_stay(tmp_path):
    folder, _ = trained(tmp_path, "best+last")
    place = folder / "checkpoints"
    (place / "00000030.state.safetensors").write_bytes(b"")
    (place / "00000029.json").write_bytes((place / "00000030.json").read_bytes())
    before = storage.names(place)
    assert keep_only(folder, result(folder)["weights"], last=True) == 0
    assert storage.names(place) == before


def test_a_run_without_weights_says_so_in_one_line_and_keeps_its_scores(tmp_path, capfd):
    folder, names = trained(tmp_path, "none")
    assert names == []
    assert result(folder)["weights"] is None and result(folder)["status"] == "done"
    code, printed = scores(tmp_path, capfd, folder)
    assert code == 3
    (line,) = [line for line in printed.err.splitlines() if line.startswith("runner: error")]
    assert line.endswith("has no weights (keep=none, or task=clean removed them); train it again with keep=best")
    # It is finished: nothing is trained again
    before = result(folder)
    assert main([f"resume={folder}"]) == 0
    assert result(folder) == before and storage.names(folder / "checkpoints") == []


def test_the_test_split_is_read_with_the_best_weights_before_they_go(tmp_path):
    found = [result(trained(tmp_path, keep, "test=end")[0])["scores"]["test"] for keep in ("best+last", "none")]
    assert found[0] == found[1]


TRIALS = [(1, "best+last"), (100, "best+last"), (101, "best"), (float("inf"), "best")]


@pytest.mark.parametrize(("trials", "wanted"), TRIALS)
def test_many_trials_keep_the_best_weights_only(tmp_path, trials, wanted):
    config = job(*WORDS).config
    assert config["keep"] == "best+last"
    for keep, expected in [("auto", wanted), ("none", "none")]:
        each = trial_job({**config, "keep": keep}, (), tmp_path / "x-00000000", trials=trials)
        assert each.config["keep"] == expected


@pytest.mark.parametrize(
    ("words", "count", "wanted"), [((), 100, "best+last"), ((), 101, "best"), (("keep=none",), 101, "none")]
)
def test_a_task_that_launches_many_runs_keeps_as_a_sweep_does(tmp_path, words, count, wanted):
    like = job(*WORDS, *words)
    variants = [{**like.config, "seed": seed} for seed in range(count)]
    assert {each.config["keep"] for each in variant_jobs(variants, tmp_path, like)} == {wanted}


@pytest.mark.parametrize(("seeds", "wanted"), [(100, "best+last"), (101, "best")])
def test_a_grid_counts_its_trials(tmp_path, monkeypatch, seeds, wanted):
    monkeypatch.chdir(tmp_path)
    words = ["-m", *WORDS, f"seed=range(0,{seeds})"]
    plan = checked_command(read_arguments(words)).sweep
    assert len(plan.jobs) == seeds
    assert {each.config["keep"] for each in plan.jobs} == {wanted}
