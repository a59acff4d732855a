"""`average=swag` and `predict=swag` from training to a saved run."""

import numpy as np
import pytest
import torch
from running import job, killed_in_step, metrics, result, run_in_child, starter

import runner.tasks.train  # noqa: F401  (once, before the forks)
from runner.__main__ import main
from runner.engine.saving import checkpoint, storage
from runner.tasks import start
from runner.tasks.trained.read_run import read_run, restore_predictor
from runner.tasks.trained.saved_run import known_facts

WORDS = (
    *("model=mlp", "model.hidden=[16]", "augment=[]", "probe=[]", "figures=never", "steps=60", "test=never"),
    *("average=swag", "average.start=20%", "average.every=4steps", "average.rank=4", "scheduler=constant"),
    *("predict=swag", "predict.samples=4", "validate_every=8steps", "checkpoint_every=7steps", "predictions=never"),
)


def run(folder, *more):
    return starter(folder, *WORDS, *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_in_child(run(folder)) == 0
    return folder


def evaluated(capfd, folder, *words):
    """Return accuracy, loss and nll that task=evaluate prints for the validation split."""
    capfd.readouterr()
    assert main(["task=evaluate", "task.split=val", f"run={folder}", *words]) == 0
    line = next(line for line in capfd.readouterr().out.splitlines() if line.strip().startswith("val "))
    return [float(word) for word in line.split()[1:3]]


@pytest.mark.parametrize("step", [9, 30, 60])
def test_a_killed_run_ends_as_if_it_never_was(whole, tmp_path, step):
    folder = tmp_path / "run"
    assert run_in_child(killed_in_step(step, run(folder))) == -9
    assert run_in_child(lambda: start(job(f"resume={folder}"))) == 0
    assert metrics(folder) == metrics(whole)
    one, other = (checkpoint.load(each).weights for each in (folder, whole))
    assert one.keys() == other.keys() and all(torch.equal(one[name], tensor) for name, tensor in other.items())
    assert sum(name.startswith("swag.") for name in one) > 3 and one["swag.count"] == 13


def test_the_tensors_of_the_distribution_are_stored_once(whole):
    place = whole / "checkpoints"
    sizes = {name: (place / name).stat().st_size for name in storage.names(place) if name.startswith("00000060")}
    assert sizes["00000060.weights.safetensors"] > 2 * sizes["00000060.state.safetensors"]


@pytest.mark.parametrize("keep", ["best+last", "best"])
def test_a_saved_run_samples_as_its_own_validation_did(tmp_path, capfd, keep):
    folder = tmp_path / "run"
    assert run(folder, f"keep={keep}")() == 0
    best = result(folder)["scores"]["val"]["best"]
    assert evaluated(capfd, folder) == pytest.approx([best["accuracy"], best["loss"]], abs=1e-4)
    other = evaluated(capfd, folder, "predict=swag", "predict.samples=9")
    mean = evaluated(capfd, folder, "predict=plain")
    assert len({tuple(each) for each in (evaluated(capfd, folder), other, mean)}) == 3


def test_predictions_of_images_are_the_same_each_time(whole, tmp_path):
    saved = read_run(job(f"run={whole}", "task=predict"), task="predict")
    predictor = restore_predictor(saved, known_facts(saved), threads=False)
    images = predictor.preprocess(torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8))
    found = []
    for _ in range(2):
        predictor.reseed(-1)
        with torch.no_grad():
            found.append(predictor.predict(predictor.model, images).log_p.exp().numpy())
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0].sum(1), 1, rtol=1e-5)


def test_what_cannot_sample_or_be_exported_is_one_line(whole, tmp_path, capfd):
    other = tmp_path / "other"
    words = [word for word in WORDS if not word.startswith(("average", "predict."))]
    assert start(job(*[word for word in words if word != "predict=swag"], f"hydra.run.dir={other}")) == 0
    capfd.readouterr()
    assert main(["task=evaluate", f"run={other}", "predict=swag"]) == 2
    assert (
        capfd.readouterr()
        .err.splitlines()[-1]
        .endswith("predict=swag: requires average=swag, which collects the moments of the weights")
    )
    out = f"task.out={tmp_path / 'model.pt2'}"
    assert main(["task=export", f"run={whole}", "task.format=torch_export", out]) == 2
    assert "predict=swag: draws random numbers, which no file keeps; to export: predict=plain" in capfd.readouterr().err
    assert main(["task=export", f"run={whole}", "task.format=torch_export", out, "predict=plain"]) == 0


def test_a_run_starts_from_the_mean(whole, tmp_path, capfd):
    words = [word for word in WORDS if not word.startswith(("average", "predict", "steps"))]
    assert start(job(*words, "steps=1", f"init_from={whole}", f"hydra.run.dir={tmp_path / 'tuned'}")) == 0
    assert "swag" not in capfd.readouterr().err
