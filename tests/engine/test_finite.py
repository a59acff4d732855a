"""A step with a non-finite number is never applied, and the error names where the number first appeared."""

from __future__ import annotations

import math

import pytest
import torch
from planted import LAYER, NORM, WEIGHT, before_step, planted
from small_runs import RecordedRows, as_bits, build, checkpoint_content, small
from torch import nn

from runner.engine import finite
from runner.engine.finite import Gate, flag_nonfinite, flag_nonfinite_amp, not_finite
from runner.engine.logs.log import Log
from runner.engine.nonfinite_trace import explain_divergence, find_first_nonfinite
from runner.engine.train import train
from runner.errors import Diverged
from runner.registry import names

NAN, INF = math.nan, math.inf
STEP, STEPS = 7, 20  # steps done before the bad one, steps in all
FLAT = {"norm": "batch", "model": "mlp", "log_every": 50, "validate_every": "20steps", "checkpoint_every": "20steps"}
MARKS = [flag_nonfinite_amp, flag_nonfinite]


def experiment(where, bad, step=STEP, **more):
    return planted(build(small({**FLAT, "steps": STEPS, **more})), where, bad, step)


def diverged(made, commit=lambda: None):
    """Train until it raises; return what it says, then and with the finding, and the rows of the log."""
    rows = RecordedRows()
    log = Log(screens=[rows])
    with pytest.raises(Diverged) as caught:
        train(made.recipe, made.learner, made.batches, made.validation, log, commit)
    log.close()
    return str(explain_divergence(caught.value, made.recipe, made.learner, made.batches, made.validation)), rows


def weights_and_states(learner):
    kept = {"weights": dict(learner.model.named_parameters()), "states": learner.optimizer.state_dict()["state"]}
    return {
        (kind, name, key): as_bits(value)
        for kind, named in kept.items()
        for name, values in named.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    }


@pytest.mark.parametrize("beside", [False, True], ids=["seen at once", "told on the device"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optim", names("optim"))
def test_one_bad_gradient_leaves_weights_and_optimizer_as_they_were(optim, precision, beside, monkeypatch):
    monkeypatch.setattr(finite, "is_host_memory", lambda device: not beside)
    for bad, implementation in zip((NAN, INF), MARKS, strict=True):
        monkeypatch.setattr(finite, "has_amp_check", lambda device, own=implementation is flag_nonfinite_amp: own)
        made = experiment("gradient", bad, optim=optim, precision=precision)
        was = {}
        made = before_step(made, STEP, lambda made=made, was=was: was or was.update(weights_and_states(made.learner)))
        said, rows = diverged(made)
        assert made.learner.gate._flag_nonfinite is implementation
        assert weights_and_states(made.learner) == was
        assert made.learner.step == STEP
        assert said == (
            f"diverged at step {STEP + 1}: the gradient of {WEIGHT} is not finite (the loss is); "
            "the weights are those before this step; a smaller optim.lr may help"
        )
        assert {step for step, _, _ in rows} == set(range(1, STEP + 2)), "later steps moved nothing, and are not logged"


@pytest.mark.parametrize("implementation", MARKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "pure_bf16"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("input", "1 of its 16 input images are not finite; the weights are those before this step"),
        ("loss", "the loss is not finite (the model's output is); the weights are those before this step; a smaller"),
        ("output", f"the output of {LAYER} (Linear) is not finite (its input and the weights are); the weights are"),
        ("weight", f"the weight {WEIGHT} was not finite before this step"),
    ],
)
def test_what_was_first_not_finite_is_named(where, found, bad, precision, implementation, monkeypatch):
    monkeypatch.setattr(finite, "has_amp_check", lambda device: implementation is flag_nonfinite_amp)
    made = experiment(where, bad, precision=precision)
    was = {}
    made = before_step(made, STEP, lambda: was or was.update(weights_and_states(made.learner)))
    said, _ = diverged(made)
    assert said.startswith(f"diverged at step {STEP + 1}: {found}")
    now = weights_and_states(made.learner)
    if where == "weight":  # which was spoilt by us, after we had looked
        assert was.pop(("weights", WEIGHT, "")) != now.pop(("weights", WEIGHT, ""))
    assert now == was


OTHER_WAYS = [
    *({"clip": 0.1, "clip_by": kind} for kind in ("norm", "value", "agc")),
    *({"accumulate": 2}, {"regularizer": ["max_norm"]}, {"average": "none"}, {"update": "sam"}),
]


@pytest.mark.parametrize("beside", [False, True], ids=["seen at once", "told on the device"])
@pytest.mark.parametrize("more", OTHER_WAYS)
def test_nothing_moves_in_other_ways_of_making_a_step(more, beside, monkeypatch):
    monkeypatch.setattr(finite, "is_host_memory", lambda device: not beside)
    made = experiment("output", NAN, **more)
    was = {}
    made = before_step(made, STEP, lambda: was or was.update(weights_and_states(made.learner)))
    said, _ = diverged(made)
    assert said.startswith(f"diverged at step {STEP + 1}: the output of {LAYER} (Linear) is not finite")
    assert weights_and_states(made.learner) == was


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_learning_rate_that_is_not_finite_is_never_used(bad, precision):
    made = experiment("lr", bad, precision=precision)
    said, _ = diverged(made)
    rate = f"the learning rate of the tensors in 'decay' is {bad}"
    assert said == f"diverged at step {STEP + 1}: {rate}; the weights are those before this step"
    assert made.learner.step == STEP
    assert made.learner.faults() == []


def test_a_bad_step_before_a_bad_learning_rate_is_the_one_told_of():
    made = planted(experiment("lr", NAN, step=STEP + 4), "loss", NAN, STEP)
    said, _ = diverged(made)
    assert said.startswith(f"diverged at step {STEP + 1}: the loss is not finite")


@pytest.mark.parametrize("average", ["none", "ema"])
def test_statistics_that_only_evaluation_reads_are_found_by_it_and_named(average):
    made = experiment("statistics", NAN, average=average)
    commits = []
    said, _ = diverged(made, commit=lambda: commits.append(made.learner.step))
    assert said.startswith(
        f"diverged at step {STEPS}: train_eval/loss is nan after this step: buffer {NORM}.running_mean is not"
    )
    assert not commits
    assert made.learner.patience.best == {}, "a score that is not finite is never the best"


def test_a_variance_that_hides_its_infinity_from_the_scores_is_never_saved():
    made = experiment("statistics", 0.0, average="none")
    norm = made.learner.model.get_submodule(NORM)
    commits = []
    made = before_step(made, STEP, lambda: norm.running_var[0].fill_(INF))
    said, _ = diverged(made, commit=lambda: commits.append(made.learner.step))
    assert said == f"diverged at step {STEPS}: buffer {NORM}.running_var is not finite after this step"
    assert not commits


def test_a_state_of_the_optimizer_that_overflows_is_never_saved():
    made = experiment("gradient", 1e30, optim="adam", average="none")  # its square is beyond float32
    said, _ = diverged(made)
    assert said == f"diverged at step {STEPS}: exp_avg_sq of {WEIGHT} is not finite after this step"


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_score_that_is_not_finite_ends_the_run(bad):
    made = experiment("score", bad, step=STEPS - 1)
    said, _ = diverged(made)
    assert said.startswith(f"diverged at step {STEPS}: train_eval/loss is ")
    assert "all module outputs were finite when the evaluation was repeated" in said


def test_a_layer_that_only_evaluation_overflows_is_named():
    made = build(small({**FLAT, "steps": STEPS, "average": "none"}))
    layer = made.learner.model.get_submodule(LAYER)
    layer.register_forward_hook(lambda module, inputs, output: output if module.training else output / 0)
    said, _ = diverged(made)
    assert f"train_eval/loss is nan after this step: the output of {LAYER} (Linear) is not finite" in said


def test_a_buffer_that_is_meant_to_be_infinite_is_no_fault():
    made = build(small({**FLAT, "steps": STEPS}))
    made.learner.model.register_buffer("mask", torch.full((2,), -INF))
    assert made.learner.faults() == ["buffer mask"]
    made.learner.__post_init__()  # as if the model had come with it
    assert made.learner.faults() == []


def test_a_loss_scaler_skips_a_bad_gradient_and_goes_on():
    made = experiment("gradient", INF, precision="fp16")
    assert train(made.recipe, made.learner, made.batches, made.validation, Log(), lambda: None) == "done"
    assert made.learner.step == STEPS
    assert made.learner.faults() == []


def test_a_loss_that_stays_bad_ends_a_run_with_a_loss_scaler():
    made = build(small({**FLAT, "steps": STEPS, "precision": "fp16"}))
    for step in range(STEP, STEPS):
        made = planted(made, "loss", NAN, step)
    said, _ = diverged(made)
    assert said.startswith(f"diverged at step {STEPS}: the loss is not finite")
    assert made.learner.faults() == []


def test_looking_changes_nothing_but_gradients_and_leaves_no_hooks():
    made = build(small({**FLAT, "steps": STEPS}))
    model = made.learner.model.train()
    images, labels = next(made.batches.stream(0, 1))
    was = checkpoint_content(made)

    def compute():
        made.recipe.loss(model(images), labels).backward()

    assert find_first_nonfinite(model, compute) is None
    assert all(weight.grad is not None for weight in model.parameters()), "all was looked at"
    assert checkpoint_content(made) == was, "statistics of norms too"
    hooks = [getattr(module, name) for module in model.modules() for name in ("_forward_hooks", "_backward_hooks")]
    assert not any(hooks)
    assert not any(weight._post_accumulate_grad_hooks for weight in model.parameters())


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Identity(), nn.LogSigmoid())), None),
        (lambda: Between(), "the output of inner (Root) is not finite (its input and the weights are)"),
    ],
)
def test_the_innermost_module_is_named_where_a_function_between_modules_is_at_fault(model, found):
    model = model if isinstance(model, nn.Module) else model()
    assert find_first_nonfinite(model, lambda: model(torch.tensor([[-1.0, 2.0]]))) == found


class Root(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Identity(), nn.Identity()

    def forward(self, x):
        return self.last(self.first(x).sqrt())


class Between(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Root()

    def forward(self, x):
        return self.inner(x) * 2


def test_a_gradient_that_a_function_spoils_is_found_at_the_output_that_it_reaches():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    model[0].weight.data.fill_(-1.0)  # ReLU gives zeros, and the root's slope at zero is infinite

    def compute():
        model(torch.ones(1, 2)).sqrt().sum().backward()

    assert find_first_nonfinite(model, compute) == "the gradient at the output of 1 (ReLU) is not finite (the loss is)"


@pytest.mark.parametrize("implementation", MARKS)
def test_a_mark_is_made_for_any_bad_number_and_stays(implementation):
    one = torch.ones(())
    for bad in (NAN, INF, -INF):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            shut = torch.zeros(())
            good = [torch.randn(3, 2, dtype=dtype), torch.randn(4, dtype=dtype)]
            copies = [tensor.clone() for tensor in good]
            implementation([*good, torch.tensor(0.5, dtype=dtype)], shut, one)
            assert shut == 0
            assert all(map(torch.equal, good, copies))
            implementation([*good, torch.tensor([1.0, bad], dtype=dtype)], shut, one)
            assert shut == 1
            implementation(good, shut, one)
            assert shut == 1


def test_what_is_not_finite_is_listed_in_order_and_whole_numbers_are_passed_over():
    tensors = {"a": torch.tensor([1.0, NAN]), "b": torch.tensor(3), "c": torch.ones(2), "d": torch.tensor(INF)}
    assert not_finite(tensors) == ["a", "d"]
    large = torch.full((4,), 3e38)
    assert large.sum() == INF
    assert not_finite({"large": large, "both": torch.tensor([INF, -INF]), "half": torch.full((9,), 6e4).half()}) == [
        "both"
    ]
    assert not_finite({}) == []


def test_a_plugins_fused_optimizer_that_takes_no_flag_is_asked_about(monkeypatch):
    weight = nn.Parameter(torch.ones(2))
    told = torch.optim.SGD([weight], lr=0.1, fused=True)
    assert not Gate(told).needs_host_sync
    assert not hasattr(told, "found_inf"), "on the CPU there is no need"
    monkeypatch.setattr(finite, "is_host_memory", lambda device: False)
    assert not Gate(told).needs_host_sync
    assert told.found_inf is not None
    deaf = torch.optim.SGD([weight], lr=0.1, fused=True)
    del deaf._step_supports_amp_scaling
    assert Gate(deaf).needs_host_sync
    assert Gate(torch.optim.SGD([weight], lr=0.1, foreach=True)).needs_host_sync
