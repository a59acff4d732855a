"""precision=pure_bf16: weights and steps in bfloat16, norms and averages in float32, errors where that fails."""

from __future__ import annotations

import pytest
import torch
from cases import choices
from running import MLP, job, result
from small_runs import build, config, interrupted, small, uninterrupted
from torch import nn
from torch.nn import functional as F

from runner.assemble import assemble
from runner.components.optim import gradient
from runner.errors import ConfigError
from runner.registry import names
from runner.tasks import start

HALF, SINGLE = torch.bfloat16, torch.float32
PURE = {"precision": "pure_bf16"}
REFUSED = {  # optimizer: what must be set to have it, if anything helps
    "adagrad": None,
    "adafactor": None,
    "adam": {"optim.betas": [0.9, 0.99]},
    "adamax": {"optim.betas": [0.9, 0.99]},
    "adamw": {"optim.betas": [0.9, 0.99]},
    "lamb": {"optim.betas": [0.9, 0.99]},
    "nadam": None,
    "radam": {"optim.betas": [0.9, 0.99]},
    "schedulefree": None,
    "schedulefree_sgd": None,
}


def test_sgd_is_the_hand_stepped_one_bit_for_bit():
    given = {
        **PURE,
        "optim": "sgd",
        "optim.lr": 0.5,
        "optim.weight_decay": 0.0,
        "norm": "none",
        "scheduler": "constant",
        "average": "none",
    }
    experiment = build(small(given))
    weights = [w.detach().clone() for w in experiment.learner.model.parameters()]
    assert {w.dtype for w in weights} == {HALF}
    images = [batch for batch, _ in zip(experiment.batches.stream(0, 5), range(5), strict=True)]
    for x, y in images:
        weights = stepped(weights, x.flatten(1), y, lr=0.5)
    experiment, _ = uninterrupted(small(given), 5)
    assert all(map(torch.equal, experiment.learner.model.parameters(), weights))


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_a_fused_step_that_moves_nothing_is_not_taken(name, monkeypatch):
    monkeypatch.setattr(gradient, "torch_sgd", lambda *tensors, **options: None)  # as torch's up to 2.13 on a CPU
    gradient.fused_step_works.cache_clear()
    try:
        groups = [build(small({**PURE, "optim": name})).learner.optimizer.param_groups, *whole(name)]
    finally:
        gradient.fused_step_works.cache_clear()
    assert [[group["fused"] for group in each] for each in groups] == [[None, None], [True, True]]


def whole(name):
    """Return the groups of a run in float32, whose fused step is known to move."""
    return [build(small({"optim": name})).learner.optimizer.param_groups]


def stepped(weights, x, y, *, lr):
    """Return the weights of three linear layers with ReLU after one step, each product and sum rounded to bfloat16."""
    w = [weight.requires_grad_() for weight in weights]
    hidden = F.linear(x.to(HALF), w[0], w[1]).relu()
    logits = F.linear(F.linear(hidden, w[2], w[3]).relu(), w[4], w[5])
    gradients = torch.autograd.grad(F.cross_entropy(logits.float(), y), w)
    return [(a.detach().float() - lr * g.float()).to(HALF) for a, g in zip(w, gradients, strict=True)]


def test_all_but_norms_and_averages_is_bfloat16():
    experiment, _ = uninterrupted(small({**PURE, "model": "resnet", "optim": "momentum"}), 2)
    learner = experiment.learner
    norms = {id(t) for m in learner.model.modules() if isinstance(m, nn.BatchNorm2d) for t in (m.weight, m.bias)}
    assert norms
    for parameter in learner.model.parameters():
        wanted = SINGLE if id(parameter) in norms else HALF
        assert (parameter.dtype, parameter.grad.dtype) == (wanted, wanted)
        assert learner.optimizer.state[parameter]["momentum_buffer"].dtype == wanted
    assert {b.dtype for b in learner.model.buffers() if b.is_floating_point()} == {SINGLE}
    assert {p.dtype for p in learner.average.module.parameters()} == {SINGLE}


def test_feature_maps_are_bfloat16_in_training_and_evaluation():
    experiment = build(small({**PURE, "model": "resnet"}))
    recipe, learner, seen = experiment.recipe, experiment.learner, set()
    images = next(experiment.batches.stream(0, 1))[0]
    for model in (learner.model, learner.average.module):
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(lambda module, given, made: seen.add(made.dtype))
        with recipe.autocast():
            recipe.forward(model, images)
            assert recipe.predict(model, images).log_p.dtype == SINGLE
        assert seen == {HALF}
        seen.clear()


def test_an_average_takes_steps_that_bfloat16_would_lose():
    experiment = build(small({**PURE, "average": "ema", "average.decay": 0.99, "average.warmup": False}))
    learner = experiment.learner
    weight, mean = next(learner.model.parameters()), next(learner.average.module.parameters())
    sums, norm = torch.zeros_like(mean), 0.0
    for step in range(1, 100):
        with torch.no_grad():
            weight.fill_(1.0 if step < 50 else 1.0 + 2**-7)  # two neighbors
        learner.average.update(learner.model, step)
        sums, norm = sums * 0.99 + weight.detach().float(), norm * 0.99 + 1
    torch.testing.assert_close(mean, sums / norm, rtol=1e-5, atol=0)
    assert not torch.equal(mean, mean.to(HALF).float())


@pytest.mark.parametrize("average", [name for name in names("average") if name != "schedulefree"])
def test_every_average_resumes_bit_for_bit(average, tmp_path):
    given = {**choices("average", average), **PURE, "optim": "momentum", "scheduler": "constant"}
    experiment, whole = uninterrupted(given, 4)
    assert interrupted(given, 2, 4, tmp_path).state == whole.state
    kept = {weight.dtype for weight in experiment.learner.average.module.parameters()}
    assert (kept == {SINGLE}) == (average not in ("none", "snapshots"))


@pytest.mark.parametrize("model", [name for name in names("model") if name != "timm"])
def test_every_model_steps_and_resumes_bit_for_bit(model, tmp_path):
    given = {**choices("model", model), **PURE}
    if model == "torchvision":
        given["model.arch"] = "squeezenet1_1"  # others take half a minute: a CPU is slow at small maps in bfloat16
    experiment, whole = uninterrupted(given, 2)
    assert HALF in {weight.dtype for weight in experiment.learner.model.parameters()}
    assert all(weight.isfinite().all() for weight in experiment.learner.weights().values())
    again = interrupted(given, 1, 2, tmp_path)
    assert (again.state, again.printed, again.rows) == (whole.state, whole.printed, whole.rows)


@pytest.mark.parametrize("optim", names("optim"))
def test_every_optimizer_steps_and_resumes_bit_for_bit_or_is_refused(optim, tmp_path):
    given = small({**PURE, "optim": optim, "model": "cnn"})
    if optim in REFUSED:
        with pytest.raises(ConfigError, match=r"precision: pure_bf16 cannot hold .* choose precision=bf16"):
            assemble(config(given))
    if REFUSED.get(optim, {}) is None:
        return
    given |= REFUSED.get(optim, {})
    before = [w.detach().clone() for w in build(given).learner.model.parameters()]
    experiment, whole = uninterrupted(given, 4)
    assert not any(map(torch.equal, before, experiment.learner.model.parameters()))
    assert interrupted(given, 2, 4, tmp_path).state == whole.state


@pytest.mark.parametrize("norm", names("norm"))
def test_every_norm_and_all_probes_work(norm):
    given = {**choices("norm", norm), **PURE, "probe": names("probe"), "clip": 1.0, "accumulate": 2}
    _, left = uninterrupted(given, 2)
    tags = {tag for _, tag in left.tags}
    for start_of in ("grad_norm/", "weight_norm/", "ratio/", "weights/", "gradients/", "activations/"):
        assert any(tag.startswith(start_of) for tag in tags), start_of


def test_it_learns_what_fp32_learns(tmp_path):
    scores = {}
    for model in (("model=mlp",), ("model=cnn", "model.channels=[8,16]")):
        for precision in ("fp32", "pure_bf16"):
            where = tmp_path / model[0] / precision
            words = [word for word in MLP if not word.startswith("model")]
            start(job(*words, *model, "epochs=3", f"precision={precision}", "figures=never", f"hydra.run.dir={where}"))
            scores[model[0], precision] = result(where)["scores"]["val"]["last"]["accuracy"]
        assert scores[model[0], "fp32"] > 0.8
        assert scores[model[0], "pure_bf16"] == pytest.approx(scores[model[0], "fp32"], abs=0.03)
