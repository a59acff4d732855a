"""The logged update/weight ratio equals the norm of the actual change of the weights, for any optimizer."""

import pytest
import torch
from running import job
from small_runs import probe_values

import runner.components  # noqa: F401
from runner.assemble import assemble
from runner.engine.contracts import Watched
from runner.engine.probing import probing
from runner.engine.train import update
from runner.registry import find, knobs, names


@pytest.mark.parametrize("name", names("optim"))
def test_the_ratio_is_the_norm_of_the_real_difference(name):
    decay = ["optim.weight_decay=0.1"] if "weight_decay" in knobs(find("optim", name)) else []
    parts = ["model=mlp", "model.hidden=[16,16]", "clip=0.5", "probe=[update_ratio]", "regularizer=[l2]"]
    made = assemble(job(*parts, f"optim={name}", *decay).config)
    learner, recipe = made.learner, made.recipe
    weights = {n: p for n, p in learner.model.named_parameters() if p.ndim >= 2}
    for images, labels in made.batches.stream(0, 3):
        learner.set_lr()
        before = {n: p.detach().clone() for n, p in weights.items()}
        with probing(recipe.probes, Watched(learner.model, learner.parameters, images, labels, learner.step)) as seen:
            seen.outcome = update(recipe, learner, images, labels)
        values = probe_values(seen.values)
        for n, p in weights.items():
            ratio = (p.detach() - before[n]).double().norm() / before[n].double().norm()
            assert values[f"ratio/l2/{n}"].item() == pytest.approx(ratio.item(), rel=1e-5)
            assert ratio > 0
        change = torch.cat([(p.detach() - before[n]).flatten() for n, p in weights.items()]).double().norm()
        whole = torch.cat([b.flatten() for b in before.values()]).double().norm()
        assert values["ratio/l2/_global"].item() == pytest.approx((change / whole).item(), rel=1e-5)
