"""Fused steps with tensors gathered once equal torch's own to the last bit, whatever happens between two steps."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from runner.engine import fused_step
from runner.engine.fast_step import fast_step, present_gradients, unwrapped_step

MAKERS = {
    "sgd": lambda groups: SGD(groups, lr=0.1, fused=True),
    "momentum": lambda groups: SGD(groups, lr=0.1, momentum=0.9, fused=True),
    "nesterov": lambda groups: SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, fused=True),
    "dampening": lambda groups: SGD(groups, lr=0.1, momentum=0.9, dampening=0.5, maximize=True, fused=True),
    "adam": lambda groups: Adam(groups, lr=0.01, weight_decay=0.1, fused=True),
    "adamw": lambda groups: AdamW(groups, lr=0.01, betas=(0.8, 0.9), fused=True),
}
ORDINARY = {
    "not fused": lambda p: SGD(p, lr=0.1, fused=False),
    "amsgrad": lambda p: Adam(p, lr=0.1, amsgrad=True, fused=True),
    "a rate in a tensor": lambda p: Adam(p, lr=torch.tensor(0.1), fused=True),
    "a subclass": lambda p: type("Own", (SGD,), {})(p, lr=0.1, fused=True),
    "another class": lambda p: torch.optim.Adagrad(p, lr=0.1, fused=True),
}


def weights():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (4,), (5, 2), (2,))]


def groups(tensors, **more):
    return [{"params": tensors[:2]}, {"params": tensors[2:], "weight_decay": 0.05, **more}]


def both(maker, between=lambda number, tensors, optimizer: None):
    """Return (weights, states) of eight steps by our stepper and by torch's; `between` acts after each backward."""
    ends = []
    for ours in (True, False):
        tensors = weights()
        optimizer = maker(groups(tensors))
        optimizer.found_inf = torch.zeros(())
        step = fast_step(optimizer)
        generator = torch.Generator().manual_seed(1)
        for number in range(8):
            for tensor in tensors:
                tensor.grad = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            between(number, tensors, optimizer)
            step(present_gradients(optimizer)) if ours else optimizer.step()
        states = [value for tensor in tensors for value in optimizer.state[tensor].values()]
        ends.append([tensor.detach() for tensor in tensors] + [value for value in states if value is not None])
    return ends


def equal(ends):
    ours, torchs = ends
    return len(ours) == len(torchs) and all(map(torch.equal, ours, torchs))


def rates(number, tensors, optimizer):
    for group in optimizer.param_groups:
        group["lr"] = 0.1 / (1 + number)


def some_absent(number, tensors, optimizer):
    if number % 3 == 1:
        tensors[0].grad = None


def group_rests(number, tensors, optimizer):
    if number > 3:
        tensors[2].grad = tensors[3].grad = None


def late(number, tensors, optimizer):
    if number < 4:
        tensors[2].grad = tensors[3].grad = None


def shut(number, tensors, optimizer):
    optimizer.found_inf.fill_(float(number in (2, 5)))


def reloaded(number, tensors, optimizer):
    if number in (2, 5):
        optimizer.load_state_dict(optimizer.state_dict())


def forgotten(number, tensors, optimizer):
    if number == 4:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": {}})


def unused(number, tensors, optimizer):
    tensors[1].grad = None


def by_turns(number, tensors, optimizer):
    tensors[number % 2].grad = None


HAPPENINGS = [rates, unused, by_turns, some_absent, group_rests, late, shut, reloaded, forgotten]


@pytest.mark.parametrize("happening", HAPPENINGS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("name", MAKERS)
def test_steps_are_torchs_whatever_happens_between_them(name, happening):
    assert equal(both(MAKERS[name], happening))


@pytest.mark.parametrize("absent", [None, 1], ids=["all", "one without gradients"])
@pytest.mark.parametrize("name", MAKERS)
def test_torchs_own_step_makes_the_first_step_only(name, absent):
    optimizer = MAKERS[name](groups(weights()))
    class_step, _ = unwrapped_step(type(optimizer))
    calls = []
    step = fused_step.fused_step(optimizer, lambda it: (calls.append(it), class_step(it)))
    assert isinstance(step, fused_step.FusedStep)
    calls.clear()  # those of the trial
    for _ in range(4):
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                tensor.grad = torch.ones_like(tensor)
        if absent is not None:
            optimizer.param_groups[0]["params"][absent].grad = None
        with torch.no_grad():
            step(present_gradients(optimizer))
    assert len(calls) == 1


def test_types_of_one_group_are_stepped_apart():
    def maker(parts):
        parts[0]["params"][0].data = parts[0]["params"][0].data.double()
        return SGD(parts, lr=0.1, momentum=0.9, fused=True)

    ours, torchs = both(maker)
    assert equal((ours, torchs))
    assert {tensor.dtype for tensor in ours} == {torch.float32, torch.float64}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_not_known_steps_as_torch_does(name):
    optimizer = ORDINARY[name](weights())
    class_step, _ = unwrapped_step(type(optimizer))
    assert fused_step.fused_step(optimizer, class_step) is None


@pytest.mark.parametrize("error", [None, AttributeError, TypeError], ids=["other numbers", "no kernel", "other words"])
def test_a_kernel_that_does_otherwise_is_not_called(error, monkeypatch):
    def other(bucket, gradients, found_inf):
        if error:
            raise error
        torch._foreach_sub_(bucket.parameters, gradients)

    monkeypatch.setitem(fused_step.RULES, SGD, replace(fused_step.RULES[SGD], step=other))
    optimizer = MAKERS["momentum"](weights())
    class_step, _ = unwrapped_step(SGD)
    assert fused_step.fused_step(optimizer, class_step) is None
