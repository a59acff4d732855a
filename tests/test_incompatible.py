"""docs/incompatible.md: each row is rejected with its message, its reason is true, and no rejection is missing."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.cases import teacher_folder
from running import ROOT, job
from small_runs import build, small
from torch import nn
from torch.nn import functional as F

from runner.assemble import assemble
from runner.engine.parts import Residual
from runner.errors import RunnerError

PAGE = (ROOT / "docs" / "incompatible.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| .+ \|$", PAGE, re.M))
SOURCES = [
    path
    for folder in ("components", "assemble")
    for path in sorted((ROOT / "runner" / folder).rglob("*.py"))
    if "components/data" not in str(path) or path.name == "synthetic.py"
]
ALONE = (  # about one value, a file, this machine or a model of another library (docs/torchvision.md)
    r"must be \[low, high\]",
    r"must be two numbers",
    r"no file at",
    r"timm is not installed",
    r"device: got",
    r"torch.compile needs",
    r"the run computes on",
    r"no trainable parameter$",
    r"the first layer of this model reads no pixels",
    r"cannot replace",
    r"has no bias to hold it",
    # Only a user's own model has no classifier, or parametrized weights
    r"for a model without a linear or convolutional classifier",
    r"are not one tensor with a row for each",
    r"not supported with the parametrization",
    r"cannot set .* through its parametrization",
    r"in its state is a",
    # Of a saved run, whose settings are not refused
    r"steps, more than the run",
    # Depends on the images
    r"are equal on the first batch",
    r"features have no range",
    r"were trained with",
    r"a residual branch of this model has no weights",
    r"not supported with data.groups",
    # Of the run folder of a teacher
    r"is not a config of this version",
    r"does not say which classes it knows",
    r"was trained on images of",
    r"knows other classes than these data",
    r"cannot be built here",
    r"with an ensemble as teacher",
    # Of a user's own metric
    r"must be a decorator of the",
    r"must return a Metric",
    # Of weights that are read, or of a run that is extended
    r"has no published weights",
    r"have the SHA-256",
    r"must be false with windows",
    # Of a transfer, which needs weights: tests/test_transfer.py
    r"transfer: got",
    r"transfer\..*: ",
    r"transfer= says when",
    r"^model: got one without a linear layer",
    r"preprocess: the statistics of",
    r"was trained with",
    # Of several processes, or of one that should be several: tests/processes
    r" in \.\* processes",
    r"belongs to several processes",
    # Of a service elsewhere, and of a package that is not here
    r"requires tracker.mlflow",
    r"tracker.mlflow.uri: got",
    r"is not installed; pip install",
)


@pytest.mark.parametrize(("asked", "line"), ROWS.items())
def test_each_row_is_refused_in_its_words(asked: str, line: str) -> None:
    device = [] if "cuda_graphs" in asked else ["device=cpu"]
    if "outputs/teacher" in asked:
        asked, line = (text.replace("outputs/teacher", teacher_folder()) for text in (asked, line))
    with pytest.raises(RunnerError) as refusal:
        assemble(job(*asked.split(), *device).config)
    assert str(refusal.value) == line
    assert refusal.value.exit_code == 2


def reasons() -> Iterator[tuple[Path, str]]:
    """Yield the text of every ConfigError that assembly can raise, as a pattern, with its file."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ConfigError":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                fixed = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".*" for p in parts]
                yield path, "".join(fixed)


def is_listed(line: str) -> bool:
    """Return True if the page lists a rejection."""
    known = [pattern for _, pattern in reasons() if any(re.fullmatch(pattern, row) for row in ROWS.values())]
    return any(re.fullmatch(pattern, line) for pattern in known)


@pytest.mark.parametrize(("path", "pattern"), [pytest.param(p, r, id=r[:60]) for p, r in reasons()])
def test_the_page_has_every_reason(path: Path, pattern: str) -> None:
    listed = any(re.fullmatch(pattern, line) for line in ROWS.values())
    alone = any(re.search(words, pattern.replace("\\", "")) for words in ALONE)
    assert listed or alone, f"docs/incompatible.md lacks a row for this line of {path.name}"


def nothing_but_the_shift() -> None:
    for norm, shape in ((nn.GroupNorm(8, 8), (4, 8)), (nn.LayerNorm(1), (4, 1))):
        assert norm(torch.randn(shape)).abs().max() < 1e-3  # rounding only
    x = torch.randn(4, 8, 1, 1)
    assert not (x - x.mean((2, 3), keepdim=True)).any()  # instance norm's numerator


def torch_refuses(call: Callable[[], object]) -> Callable[[], None]:
    def check() -> None:
        with pytest.raises((RuntimeError, ValueError)):
            call()

    return check


def two_rows_are_unseen() -> None:
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    nn.Conv2d(1, 4, 3, stride=3)(x).sum().backward()
    assert x.grad is not None and not x.grad[0, 0, 6:].any() and not x.grad[0, 0, :, 6:].any()


def an_even_kernel_changes_the_size() -> None:
    assert nn.Conv2d(1, 1, 4, padding=2)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 9, 9)


def no_module(model: str, kind: type[nn.Module]) -> Callable[[], None]:
    def check() -> None:
        assert not any(isinstance(m, kind) for m in build(small({"model": model})).learner.model.modules())

    return check


def poolings_that_are_no_modules() -> None:
    """The blocks of torchvision's Inception that halve the maps have a branch of pooling and no module for it."""
    from torchvision.models import inception

    for block, side in ((inception.InceptionB(8), 9), (inception.InceptionD(8), 9)):
        assert not any(isinstance(m, nn.MaxPool2d) for m in block.modules())
        x = torch.randn(2, 8, side, side)
        assert torch.equal(block(x)[:, -8:], F.max_pool2d(x, 3, 2))


def no_gradient_through_a_relu_at_zero() -> None:
    layer = nn.Conv2d(2, 2, 3, bias=False)
    nn.init.zeros_(layer.weight)
    layer(torch.randn(3, 2, 8, 8)).relu().square().sum().backward()
    assert layer.weight.grad is not None and not layer.weight.grad.any()
    second = nn.Conv2d(2, 2, 3, bias=False)
    nn.init.zeros_(second.weight)
    F.conv2d(torch.randn(3, 2, 8, 8), second.weight).relu().sum().backward()  # its slope there is 0, not the loss's
    assert second.weight.grad is not None and not second.weight.grad.any()


def every_square_covers_all() -> None:
    for center in range(8):
        assert set(range(8)) <= set(range(center - 8, center + 8))


def most_crops_of_a_padded_point_miss_it() -> None:
    padded = np.pad([[1]], 1)
    assert padded.sum() == 1 and padded.size == 9
    point = torch.rand(2, 1, 1)
    assert torch.equal(point.flip(-1), point) and torch.equal(point.rot90(1, (1, 2)), point)


def all_passes_are_equal() -> None:
    experiment = build(small({"model": "mlp"}))
    images = next(experiment.batches.stream(0, 1))[0]
    model = experiment.learner.model.eval()
    assert torch.equal(model(images), model(images))


def momentum_keeps_no_average() -> None:
    optimizer = build(small({"optim": "momentum", "steps": 1})).learner.optimizer
    assert not hasattr(optimizer, "averaged")


def lamb_steps_by_the_size_of_the_weights() -> None:
    experiment = build(small({"optim": "lamb"}))
    optimizer = experiment.learner.optimizer
    weight = next(p for p in experiment.learner.model.parameters() if p.ndim == 2)
    size, before = weight.norm().item(), weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert (weight - before).norm().item() == pytest.approx(optimizer.param_groups[0]["lr"] * size, rel=1e-4)


def a_cosine_never_rises() -> None:
    rates = [1 + math.cos(math.pi * step / 100) for step in range(100)]
    assert rates == sorted(rates, reverse=True)


def no_average_without_a_share() -> None:
    """The model is y = (1 - a) z + a x: with a = 0 any average x gives the same model."""
    z, x = torch.randn(2, 5)
    assert torch.equal(torch.lerp(z, x, 0.0), torch.lerp(z, x + 1, 0.0))


def a_thousandth_is_lost_in_bfloat16() -> None:
    mantissas = torch.arange(128, 256).bfloat16()  # one octave; the others are the same but for the exponent
    assert torch.equal(mantissas.lerp(torch.zeros(()).bfloat16(), 1 - 0.999), mantissas)
    assert (mantissas.float() * (1 - 2**-8)).bfloat16().lt(mantissas).all()


def a_variance_in_bfloat16_is_negative() -> None:
    torch.manual_seed(0)
    size, is_nan = torch.rand(200) + 0.5, {}
    for dtype in (torch.bfloat16, torch.float32):
        weight = nn.Parameter(torch.zeros(200, dtype=dtype))
        optimizer = torch.optim.RMSprop([weight], lr=1e-3, centered=True)
        for _ in range(400):
            weight.grad = (size * (1 + 0.01 * torch.randn(200))).to(dtype)
            optimizer.step()
        is_nan[dtype] = bool(weight.isnan().any())
    assert is_nan == {torch.bfloat16: True, torch.float32: False}


def a_sum_in_bfloat16_stops_growing() -> None:
    total = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(1000):
        total += 1
    assert total == 256


def outputs_above_one_fit_best() -> None:
    """The least squares of one-hot labels on x = 0, 0, 2 predict 1.2 beyond the data: no probability."""
    x, targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0]]), torch.tensor([0.0, 0.0, 1.0])
    line = torch.linalg.lstsq(x, targets[:, None]).solution
    assert (torch.tensor([1.0, 2.4]) @ line).item() == pytest.approx(1.2)


PROOFS: dict[str, Callable[[], None]] = {
    "model=mlp norm=instance": nothing_but_the_shift,
    "model=resnet9 norm=instance": torch_refuses(lambda: nn.InstanceNorm2d(8)(torch.randn(4, 8, 1, 1))),
    "model=mlp norm=group model.hidden=[12]": torch_refuses(lambda: nn.GroupNorm(8, 12)),
    "model=mlp norm=group model.hidden=[8]": nothing_but_the_shift,
    "model=mlp norm=batch data.batch_size=109": torch_refuses(lambda: nn.BatchNorm1d(8)(torch.randn(1200 % 109, 8))),
    "model=vgg": torch_refuses(lambda: nn.Sequential(*(nn.MaxPool2d(2) for _ in range(5)))(torch.zeros(1, 1, 8, 8))),
    "model=vit model.patch=3": two_rows_are_unseen,
    "model=vit model.heads=3": torch_refuses(lambda: torch.zeros(4, 128).unflatten(1, (3, -1))),
    "model=cnn model.kernel=4": an_even_kernel_changes_the_size,
    "model=mlp regularizer=[dropblock]": no_module("mlp", nn.Conv2d),
    "model=mlp regularizer=[stochastic_depth]": no_module("mlp", Residual),
    "model=resnet regularizer=[fractional_pooling]": no_module("resnet", nn.MaxPool2d),
    "model=torchvision model.arch=inception_v3 data=synthetic data.kind=shapes data.size=96 "
    "regularizer=[fractional_pooling]": poolings_that_are_no_modules,
    "model=mlp regularizer=[dropconnect] regularizer.dropconnect.layers=[conv]": no_module("mlp", nn.Conv2d),
    "model=mlp init=residual": no_module("mlp", Residual),
    "model=resnet9 init=residual": no_gradient_through_a_relu_at_zero,
    "optim=lamb init=mup": lamb_steps_by_the_size_of_the_weights,
    "model=mlp init=whiten": no_module("mlp", nn.Conv2d),
    "augment=[crop] augment.crop.padding=8 augment.crop.mode=reflect": torch_refuses(
        lambda: F.pad(torch.zeros(1, 1, 8, 8), [8] * 4, mode="reflect")
    ),
    "augment=[cutout] augment.cutout.size=16": every_square_covers_all,
    "model=mlp data=synthetic": most_crops_of_a_padded_point_miss_it,
    "model=mlp data=synthetic augment=[] predict=tta": most_crops_of_a_padded_point_miss_it,
    "predict=mc_dropout": all_passes_are_equal,
    "average=schedulefree": momentum_keeps_no_average,
    "average=snapshots scheduler=cosine": a_cosine_never_rises,
    "optim=schedulefree optim.betas=[0.0,0.999]": no_average_without_a_share,
    "precision=pure_bf16 optim=adam": a_thousandth_is_lost_in_bfloat16,
    "precision=pure_bf16 optim=rmsprop optim.centered=true": a_variance_in_bfloat16_is_negative,
    "precision=pure_bf16 optim=adagrad": a_sum_in_bfloat16_stops_growing,
    "monitor=val/nll loss=mse": outputs_above_one_fit_best,
    "loss.class_weights=[1.0,2.0]": torch_refuses(
        lambda: F.cross_entropy(torch.zeros(4, 10), torch.zeros(4).long(), weight=torch.ones(2))
    ),
}


@pytest.mark.parametrize(("asked", "proof"), PROOFS.items())
def test_it_has_no_meaning(asked: str, proof: Callable[[], None]) -> None:
    assert asked in ROWS
    proof()


def test_nothing_on_the_page_is_left_unread() -> None:
    """Every row of the tables is one that the tests above see."""
    assert len(re.findall(r"^\| `", PAGE, re.M)) == len(ROWS) > 30
