"""Random numbers of layers in a part of a batch are those that the whole batch has in one process."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from runner.components.regularizer.dropout import DropConnectLinear, VanillaDropout
from runner.components.regularizer.ramped import RampedDropout
from runner.components.regularizer.structured_dropout import DropBlock
from runner.engine.whole_draws import whole_draws
from runner.errors import ConfigError

ROWS = range(2, 5)
WHOLE = 7


def drop_connect() -> nn.Module:
    layer = DropConnectLinear(6, 6)
    layer.drop = 0.5
    return layer


def attend(x):
    q = x.reshape(len(x), 2, -1, 3)
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.4)


def in_place(x):
    made = torch.empty_like(x)
    return made.bernoulli_(0.5) * x


CASES = {
    "dropout": (nn.Dropout(0.5), (6,)),
    "dropout of tokens, with the batch flattened": (lambda x: nn.Dropout(0.5)(x.flatten(0, 1)).view_as(x), (4, 6)),
    "dropout2d": (nn.Dropout2d(0.5), (4, 3, 3)),
    "alpha dropout": (nn.AlphaDropout(0.3), (6,)),
    "in place": (lambda x: nn.Dropout(0.5, inplace=True)(x * 1), (6,)),
    "vanilla dropout": (VanillaDropout(0.5), (6,)),
    "of whole examples": (RampedDropout(0.5, apart=1), (4, 3, 3)),
    "dropblock": (DropBlock(0.5, 2), (4, 6, 6)),
    "noise": (lambda x: x + torch.randn_like(x), (6,)),
    "bernoulli": (lambda x: torch.bernoulli(torch.sigmoid(x)) * x, (6,)),
    "filled in place": (in_place, (6,)),
    "a number for each example": (lambda x: x * torch.rand(len(x), 1), (6,)),
    "by a size in brackets": (lambda x: x * torch.rand((len(x), 1)), (6,)),
    "attention": (attend, (12,)),
    "weights": (drop_connect(), (6,)),
    "no random numbers": (nn.Linear(6, 2), (6,)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_part_has_the_rows_and_gradients_of_the_whole(name):
    layer, shape = CASES[name]
    if isinstance(layer, nn.Module):
        layer.train()
    whole = torch.randn(WHOLE, *shape).requires_grad_()
    part = whole.detach()[list(ROWS)].clone().requires_grad_()
    torch.manual_seed(3)
    expected = layer(whole)[ROWS.start : ROWS.stop]
    after = torch.rand(3)
    torch.manual_seed(3)
    with whole_draws(ROWS, WHOLE):
        found = layer(part)
    assert torch.equal(torch.rand(3), after), "later random numbers are those of the whole, too"
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    expected.sum().backward()
    if found.requires_grad:
        found.sum().backward()
        torch.testing.assert_close(part.grad, whole.grad[ROWS.start : ROWS.stop], rtol=1e-6, atol=1e-7)


def test_numbers_of_an_own_generator_and_of_no_examples_are_as_they_are():
    source = torch.Generator().manual_seed(1)
    expected = torch.rand(3, 2, generator=torch.Generator().manual_seed(1))
    with whole_draws(ROWS, WHOLE):
        assert torch.equal(torch.rand(3, 2, generator=source), expected)
    with whole_draws(range(0), WHOLE):
        assert nn.Dropout(0.5)(torch.zeros(0, 4)).shape == (0, 4)


def test_what_draws_out_of_sight_is_refused():
    x = torch.randn(3, 5, 8)
    with whole_draws(ROWS, WHOLE), pytest.raises(ConfigError, match=r"strategy\.dropout"):
        nn.RReLU()(x)
    for rate, refused in ((0.0, False), (0.1, True)):
        layer = nn.MultiheadAttention(8, 2, dropout=rate, batch_first=True)
        with whole_draws(ROWS, WHOLE):
            if refused:
                with pytest.raises(ConfigError, match=r"strategy\.dropout"):
                    layer(x, x, x)
            else:
                layer(x, x, x)
