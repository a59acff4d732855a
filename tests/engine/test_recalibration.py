"""Statistics of BatchNorms under averaged weights: those of torch's update_bn, exact on resume, only where needed."""

import copy
import json
import shutil

import pytest
import torch
from running import checkpoint_checksums, job, metrics, result
from torch import nn
from torch.optim.swa_utils import update_bn

from runner.__main__ import main
from runner.assemble import assemble
from runner.engine.interruption import Stop
from runner.engine.learner import no_recalibration
from runner.engine.recalibration import SECONDS, Recalibration
from runner.engine.recipe import drive
from runner.tasks import start

BARE = ("model=mlp", "model.hidden=[16]", "steps=40", "probe=[]", "figures=never")
MLP = (*BARE, "augment=[]")
EVERY_3 = ("average=swa", "average.start=20steps", "average.every=3steps")
SWA = (*MLP, *EVERY_3)


def trained(*overrides, steps=None):
    """Return an experiment after some steps, without validations."""
    experiment = assemble(job(*overrides).config)
    learner, recipe = experiment.learner, experiment.recipe
    for images, labels in experiment.batches.stream(0, steps or recipe.total_steps):
        learner.set_lr()
        drive(recipe.update(recipe, learner, images, labels), recipe, learner)
    return experiment


def statistics(model):
    """Return the statistics of the BatchNorms of a model."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    return [value.clone() for norm in norms for value in (norm.running_mean, norm.running_var)]


def recalibrated(experiment):
    experiment.learner.recalibrate(experiment.learner, Stop())
    return statistics(experiment.learner.average.module)


@pytest.mark.parametrize(
    "words",
    [
        SWA,
        (*MLP, "average=polyak", "average.last=20steps"),
        (*MLP, "average=polyak", "average.last=20steps", "average.blocks=4"),
        (*MLP, "optim=schedulefree", "average=schedulefree", "scheduler=constant"),
        (*BARE, *EVERY_3, "augment=[crop,hflip]"),
    ],
)
def test_the_statistics_are_those_of_torch(words):
    experiment = trained(*words)
    model = experiment.learner.average.module
    averaged, oracle = statistics(model), copy.deepcopy(model)
    flags = [module.training for module in model.modules()]
    per_epoch = experiment.batches.steps_per_epoch
    epoch = (experiment.recipe.total_steps - 1) // per_epoch
    with torch.no_grad():
        images = [images for images, _ in experiment.batches.stream(epoch * per_epoch, (epoch + 1) * per_epoch)]
    update_bn(images, oracle)
    found = recalibrated(experiment)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(found, statistics(oracle), strict=True))
    assert not any(torch.allclose(a, b, rtol=1e-3) for a, b in zip(found, averaged, strict=True))
    assert [module.training for module in model.modules()] == flags
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm1d)} == {0.1}


def test_weights_and_the_trained_model_stay_as_they_are():
    experiment = trained(*SWA)
    learner = experiment.learner
    weights = [parameter.clone() for parameter in learner.average.module.parameters()]
    model = {name: value.clone() for name, value in learner.model.state_dict().items()}
    recalibrated(experiment)
    assert all(map(torch.equal, weights, learner.average.module.parameters()))
    assert all(torch.equal(value, model[name]) for name, value in learner.model.state_dict().items())


@pytest.mark.parametrize(
    "words",
    [
        (*MLP, "average=none"),
        (*MLP, "average=ema"),
        (*MLP, "average=lookahead"),
        (*SWA, "norm=layer"),
        (*SWA, "average.statistics=average"),
        (*MLP, "average=swa", "average.start=100%"),
    ],
)
def test_there_is_no_pass_where_none_is_needed(words):
    experiment = assemble(job(*words).config)
    assert experiment.learner.recalibrate is no_recalibration
    assert not any("recomputes the statistics" in line for line in experiment.summary)


def test_an_average_that_is_still_the_model_keeps_its_statistics():
    experiment = trained(*SWA, steps=20)
    assert experiment.learner.recalibrate(experiment.learner, Stop()) == {}
    assert all(map(torch.equal, recalibrated(experiment), statistics(experiment.learner.model)))
    experiment = trained(*SWA, steps=23)
    assert SECONDS in experiment.learner.recalibrate(experiment.learner, Stop())


def test_a_frozen_batchnorm_keeps_its_statistics():
    rules = "optim.rules=[{match: 'hidden.*', until: 10steps}]"
    experiment = trained(*SWA, rules)
    before = statistics(experiment.learner.average.module)
    assert all(map(torch.equal, before, recalibrated(experiment)))


def interrupt(folder, keep):
    """Leave of a complete run only the checkpoints up to a step."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name[:8]) > keep:
            path.unlink()
    left = {**result(folder), "status": "interrupted", "exit": 130, "scores": {}}
    (folder / "result.json").write_text(json.dumps(left))


@pytest.mark.parametrize("average", [EVERY_3, ("average=polyak", "average.blocks=3", "average.last=12steps")])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, average):
    words = (*BARE, *average, "augment=[crop]", "regularizer=[dropout]", "validate_every=7steps")
    more = ("checkpoint_every=5steps", "test=end", "average.statistics=recompute")
    whole = tmp_path / "whole"
    assert start(job(*words, *more, f"hydra.run.dir={whole}")) == 0
    for step in sorted({int(path.name[:8]) for path in (whole / "checkpoints").iterdir()})[:-1]:
        folder = tmp_path / f"from{step}"
        shutil.copytree(whole, folder)
        interrupt(folder, step)
        assert main([f"resume={folder}"]) == 0
        assert (checkpoint_checksums(folder), metrics(folder)) == (checkpoint_checksums(whole), metrics(whole))
        assert result(folder)["scores"] == result(whole)["scores"]


def test_the_scores_are_those_of_the_saved_weights(tmp_path, capfd):
    folder = tmp_path / "run"
    assert start(job(*SWA, "optim.lr=1", f"hydra.run.dir={folder}")) == 0
    capfd.readouterr()
    assert main(["task=evaluate", f"run={folder}", "task.split=val"]) == 0
    best = result(folder)["scores"]["val"]["best"]
    assert f"{best['accuracy']:.4f}" in capfd.readouterr().out
    logged = [tag for _, tag, _ in metrics(folder)]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any(SECONDS in row for row in rows) and SECONDS not in logged


def test_several_processes_use_the_statistics_of_all_their_data():
    experiment = trained(*SWA)
    alone = recalibrated(experiment)

    class Two:
        rank, size = 0, 2

        def sum(self, values):
            return values + 3 * values  # another process with three times these statistics

        def slice(self, index):
            return index

    experiment.batches.world = Two()
    recalibration = Recalibration(experiment.recipe, experiment.batches, lambda step: True)
    recalibration(experiment.learner, Stop())
    found = statistics(experiment.learner.average.module)
    assert all(torch.allclose(a, 2 * b, rtol=1e-6) for a, b in zip(found, alone, strict=True))
