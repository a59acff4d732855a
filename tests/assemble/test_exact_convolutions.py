"""Grouped convolutions in bfloat16 on the CPU, whose images are smaller than the stride."""

import copy
import itertools

import pytest
import torch
from torch import nn

from runner.assemble.exact_convolutions import replace_inexact

CASES = [case for case in itertools.product((1, 2, 3, 4), (2, 4), (2, 8)) if case[0] <= case[1]]


def gradient(conv, images, upstream):
    """Return output and weight gradient, with memory around that is not zero."""
    junk = [torch.full((count,), 1e30) for count in (72, 144, 288, 1152) for _ in range(10)]
    del junk
    conv.weight.grad = None
    out = conv(images)
    out.backward(upstream.to(out.dtype))
    return out.detach().double(), conv.weight.grad.double()


@pytest.mark.parametrize(("size", "stride", "groups"), CASES)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_gradient_is_that_of_float64(size, stride, groups, stored):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3, stride, 1, groups=groups).to(memory_format=torch.channels_last)
    images = torch.randn(4, 8, size, size).to(torch.bfloat16)
    with torch.no_grad():
        conv.weight.copy_(conv.weight.bfloat16())
    exact = copy.deepcopy(conv).double()
    replace_inexact(conv)
    conv.to(stored)
    upstream = torch.randn(exact(images.double()).shape).bfloat16()
    want = gradient(exact, images.double(), upstream.double())
    for _ in range(10):
        with torch.autocast("cpu", torch.bfloat16):
            out, grad = gradient(conv, images, upstream)
        torch.testing.assert_close(out, want[0], rtol=0.02, atol=0.02)
        torch.testing.assert_close(grad, want[1], rtol=0.02, atol=0.05)


def test_other_convolutions_and_all_weights_stay():
    convs = nn.ModuleList([nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 3, groups=4)])
    grouped = nn.Conv2d(4, 4, 3, 2, groups=4)
    names = list(grouped.state_dict())
    replace_inexact(nn.ModuleList([*convs, grouped]))
    assert {type(conv) for conv in convs} == {nn.Conv2d}
    assert isinstance(grouped, nn.Conv2d) and type(grouped) is not nn.Conv2d
    assert list(copy.deepcopy(grouped).state_dict()) == names
