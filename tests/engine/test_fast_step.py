"""Steps without torch's wrappers: the same numbers, no skipped hooks, and no import of torch._dynamo before its use."""

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import runner.components  # noqa: F401  (registers all)
from runner.engine.fast_step import (
    METHODS,
    avoid_dynamo,
    fast_step,
    fast_stepper,
    fast_zero_grad,
    present_gradients,
    torch_stepper,
    unwrapped_step,
)
from runner.registry import build, names, option_config
from tests.running import ROOT


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def trained(optimizer, net, step, zero):
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        zero()
        images, labels = torch.randn(16, 64, generator=generator), torch.randint(10, (16,), generator=generator)
        nn.functional.cross_entropy(net(images), labels).backward()
        step()
    return net.state_dict(), optimizer.state_dict()


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def made(name, fused):
    net = model()
    context = {"model": net, "fused": fused}
    return build("optim", option_config("optim", name, key="optim"), **context), net


@pytest.mark.parametrize("fused", [None, True], ids=["plain", "fused"])
@pytest.mark.parametrize("name", names("optim"))
def test_direct_steps_equal_the_standard_ones_bit_for_bit(name, fused):
    avoid_dynamo()
    optimizer, net = made(name, fused)
    before = copy.deepcopy(net.state_dict())
    stepper = fast_stepper(optimizer)
    ours = trained(optimizer, net, lambda: stepper.step(present_gradients(optimizer)), stepper.zero_grad)
    optimizer, net = made(name, fused)
    standard = trained(optimizer, net, optimizer.step, optimizer.zero_grad)
    assert same(ours, standard)
    assert not same(ours[0], before)


@pytest.mark.parametrize("name", names("optim"))
def test_every_optimizer_of_ours_has_an_unwrapped_step(name):
    optimizer, _ = made(name, None)
    assert fast_step(optimizer) is not None
    step, _ = unwrapped_step(type(optimizer))
    assert inspect.unwrap(step).__code__.co_name == "step"


@pytest.fixture
def one():
    """Return SGD with lr 1 on a weight of 1 whose gradient is 0.25."""
    weight = nn.Parameter(torch.ones(1))
    weight.grad = torch.full((1,), 0.25)
    return SGD([weight], lr=1.0), weight


@pytest.mark.parametrize(
    "register",
    [
        lambda optimizer, hook: optimizer.register_step_pre_hook(hook),
        lambda optimizer, hook: optimizer.register_step_post_hook(hook),
        lambda _, hook: register_optimizer_step_pre_hook(hook),
        lambda _, hook: register_optimizer_step_post_hook(hook),
    ],
    ids=["pre", "post", "global pre", "global post"],
)
def test_hooks_registered_later_are_called_until_they_are_removed(one, register):
    optimizer, weight = one
    step, calls = fast_step(optimizer), []
    step(present_gradients(optimizer))
    handle = register(optimizer, lambda *_: calls.append(weight.item()))
    step(present_gradients(optimizer))
    handle.remove()
    step(present_gradients(optimizer))
    assert len(calls) == 1
    assert weight.item() == 0.25


def test_a_schedule_of_torchs_sees_its_optimizer_step(one):
    optimizer, weight = one
    step = fast_step(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    step(present_gradients(optimizer))
    schedule.step()  # warns unless it saw a step
    assert weight.item() == 0.75


class Plain(Optimizer):
    """Does not disable gradients, and records whether they were enabled."""

    def step(self):
        return torch.is_grad_enabled()


def test_gradients_are_off_in_a_step_only_where_torch_turns_them_off(one):
    optimizer, weight = one
    fast_step(optimizer)(present_gradients(optimizer))
    assert weight.requires_grad and weight.grad_fn is None
    assert torch.is_grad_enabled()
    plain = Plain([weight], {})
    assert fast_step(plain)([]) is plain.step() is True


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.LBFGS(parameters),
        lambda parameters: SGD(parameters, lr=1.0, differentiable=True),
    ],
    ids=["closure", "differentiable"],
)
def test_what_is_not_safe_steps_the_standard_way(one, optimizer):
    other = optimizer([one[1]])
    assert fast_step(other) is None


def test_steps_wrapped_by_others_step_the_standard_way(one, monkeypatch):
    kind = type("Own", (SGD,), {})
    optimizer = kind([one[1]], lr=1.0)
    assert fast_step(optimizer) is not None
    wrapped = kind.step
    monkeypatch.setattr(kind, "step", lambda self, closure=None: wrapped(self, closure))
    assert fast_step(optimizer) is None
    before = one[1].item()
    for number, stepper in enumerate([fast_stepper(optimizer), torch_stepper(optimizer)], 1):
        stepper.step(present_gradients(optimizer))
        assert one[1].item() == before - 0.25 * number


def test_an_optimizers_own_zero_grad_is_called(one):
    class Own(SGD):
        def zero_grad(self, set_to_none=True):
            raise NotImplementedError

    optimizer = Own([one[1]], lr=1.0)
    with pytest.raises(NotImplementedError):
        fast_zero_grad(optimizer)()


def test_groups_added_later_are_zeroed(one):
    optimizer, weight = one
    zero = fast_zero_grad(optimizer)
    other = nn.Parameter(torch.ones(1))
    other.grad = torch.ones(1)
    optimizer.add_param_group({"params": [other]})
    zero()
    assert weight.grad is None and other.grad is None


def fresh(code):
    strict = ["-W", "error", "-W", "ignore::DeprecationWarning"]  # of torch.jit, in older torch
    done = subprocess.run([sys.executable, *strict, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


USED = """
import sys, torch
from runner.engine.fast_step import avoid_dynamo, fast_step, present_gradients
avoid_dynamo()
def used(kind, **options):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.5, **options)
    weight.sum().backward()
    fast_step(optimizer)(present_gradients(optimizer))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
    assert weight.grad is None and weight.tolist() == [0.5] * 3, weight
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert len(optimizer.param_groups) == 2
    return weight, optimizer
used(torch.optim.SGD, momentum=0.9, fused=True)
assert "torch._dynamo" not in sys.modules
"""

COMPILED = """
module = torch.compile(torch.nn.Linear(3, 1), backend="eager")
inside = torch.optim.SGD(module.parameters(), lr=0.5)
inside.zero_grad()
module(torch.ones(3)).sum().backward()
before = module.bias.item()
inside.step()
assert abs(module.bias.item() - before + 0.5) < 1e-6
assert "torch._dynamo" in sys.modules
used(torch.optim.SGD)
from runner.engine.fast_step import METHODS
for name in METHODS:
    method = getattr(torch.optim.Optimizer, name).__wrapped__
    assert getattr(method, "__dynamo_disable")._torchdynamo_disable, name
"""

TRACED = """
module = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
@torch.compile(backend="eager")
def update(x):
    optimizer.zero_grad()
    module(x).sum().backward()
    optimizer.step()
    return optimizer.state_dict()["param_groups"][0]["lr"]
before = module.bias.item()
assert update(torch.ones(3)) == update(torch.ones(3)) == 0.5
assert abs(module.bias.item() - before + 1) < 1e-6
"""


def test_optimizers_are_used_avoid_dynamo():
    fresh(USED)


def test_compiling_later_works_as_ever():
    fresh(USED + COMPILED + TRACED)


def test_another_torchs_optimizers_are_left_alone(one, monkeypatch):
    def wrapped(*args):
        raise NotImplementedError

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    wrapped.__wrapped__ = lambda *args: None
    for name in METHODS:
        monkeypatch.setattr(Optimizer, name, wrapped)
    avoid_dynamo()
    with pytest.raises(NotImplementedError):
        one[0].state_dict()
    assert not vars(wrapped.__wrapped__)
    monkeypatch.delattr(sys.modules["torch.optim.optimizer"], "_global_optimizer_pre_hooks")
    assert fast_step(one[0]) is None
