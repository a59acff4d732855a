"""Models: one contract over all of them, the papers' parameter counts, and the places they mark."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

import runner.components  # noqa: F401  (registers)
from runner.engine.parts import Residual, Slot, slots
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
DIGITS, CIFAR, IMAGENET = (1, 8, 8), (3, 32, 32), (3, 224, 224)


def config(kind, name, **knobs):
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()) | knobs


def make(name, *, shape=DIGITS, num_classes=10, activation="relu", norm="batch", **knobs):
    return build(
        "model",
        config("model", name, **knobs),
        shape=shape,
        num_classes=num_classes,
        activation=lambda: build("activation", config("activation", activation)),
        norm=build("norm", config("norm", norm)),
    )


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(params=names("model"))
def name(request):
    return request.param


def batch(shape=DIGITS, size=4):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(size)


def test_logits_have_one_column_per_class_and_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = make(name, num_classes=7)
    images, labels = batch()
    logits = model(images)
    assert logits.shape == (4, 7)
    cross_entropy(logits, labels).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_seed_fixes_the_weights_and_a_state_dict_carries_them(name):
    def seeded(seed):
        torch.manual_seed(seed)
        return make(name)

    one, same, other = seeded(0), seeded(0), seeded(1)
    images, _ = batch()
    assert torch.equal(one(images), same(images))
    assert not torch.equal(one(images), other(images))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(images), other.eval()(images))


def test_bfloat16_autocast_trains(name):
    model = make(name)
    images, labels = batch()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
        loss = cross_entropy(logits, labels)
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", names("norm"))
def test_evaluation_of_an_image_does_not_depend_on_its_batch_mates(norm):
    model = make("resnet", norm=norm)
    images, _ = batch(size=8)
    trained = model(images)
    model.eval()
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
    if norm == "batch":
        assert not torch.allclose(trained[:1], model(images[:1]), atol=1e-3)


def test_layers_have_a_bias_only_where_no_norm_follows():
    for name in ("mlp", "cnn", "resnet"):
        inner = [m for m in make(name, norm="batch").modules() if isinstance(m, (nn.Conv2d, nn.Linear))][:-1]
        assert [m.bias for m in inner] == [None] * len(inner)
        assert all(
            m.bias is not None for m in make(name, norm="none").modules() if isinstance(m, (nn.Conv2d, nn.Linear))
        )


def test_every_place_gets_its_own_activation():
    for name in ("mlp", "cnn", "resnet"):
        acts = [m for m in make(name, activation="tanh").modules() if isinstance(m, nn.Tanh)]
        assert len(acts) == len(set(map(id, acts))) == {"mlp": 2, "cnn": 3, "resnet": 7}[name]


def test_models_mark_where_regularizers_may_enter():
    def marks(model):
        return {where: len(slots(model, where)) for where in ("head", "fc", "block", "residual")}

    assert marks(make("mlp", hidden=[32, 32, 32])) == {"head": 1, "fc": 3, "block": 0, "residual": 0}
    assert marks(make("cnn")) == {"head": 1, "fc": 1, "block": 2, "residual": 0}
    assert marks(make("resnet", depth=14)) == {"head": 1, "fc": 0, "block": 6, "residual": 6}
    for block in (m for m in make("resnet").modules() if isinstance(m, Residual)):
        assert isinstance(block.branch[-1], Slot) and block.branch[-1].where == "residual"


# Parameters. CIFAR kind (arXiv 1512.03385, table 6): 0.27M 0.46M 0.66M 0.85M 1.7M.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_small_image_resnets_have_the_papers_parameters(depth, millions):
    for order in ("post", "pre"):
        parameters = count(make("resnet", shape=CIFAR, depth=depth, order=order)) / 1e6
        assert float(f"{parameters:.2g}") == millions


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_large_image_resnets_have_torchvisions_parameters(depth):
    from torchvision.models import get_model

    with torch.device("meta"):
        ours = make("resnet", shape=IMAGENET, num_classes=1000, depth=depth, width=64, stem="imagenet")
        assert count(ours) == count(get_model(f"resnet{depth}"))


def test_resnet50_is_torchvisions_function_of_the_same_weights():
    from torchvision.models import resnet50

    torch.manual_seed(0)
    ours = make("resnet", shape=IMAGENET, num_classes=1000, depth=50, width=64, stem="imagenet").eval()
    theirs = resnet50().eval()
    # Same tensors in another order: torchvision defines each block's shortcut after its branch, as we do.
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images, _ = batch((3, 64, 64), 2)
    torch.testing.assert_close(ours(images), theirs(images))


def test_small_image_shortcut_skips_pixels_and_appends_zero_channels():
    model = make("resnet", norm="batch")
    block = next(m for m in model.stage2.modules() if isinstance(m, Residual))
    nn.init.zeros_(block.branch.norm2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert out.shape == (2, 32, 4, 4) and not out[:, 16:].any()


def test_pre_activation_leaves_the_identity_path_untouched():
    model = make("resnet", order="pre")
    block = next(m for m in model.stage1.modules() if isinstance(m, Residual))
    nn.init.zeros_(block.branch.conv2.weight)
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("resnet", {"depth": 19}, "model.depth: got 19, must be 6n+2"),
        ("resnet", {"depth": 20, "stem": "imagenet"}, "model.depth: got 20, must be 18, 34, 50, 101 or 152"),
        ("resnet", {"depth": 18, "stem": "imagenet"}, "images of 8x8 are too small, its 5 halvings need 32x32"),
        ("cnn", {"channels": [8] * 4}, "images of 8x8 are too small, its 4 halvings need 16x16"),
        ("cnn", {"kernel": 4}, "model.kernel: got 4, must be odd"),
    ],
)
def test_what_cannot_be_built_is_one_line(name, knobs, words):
    with pytest.raises(ConfigError) as caught:
        make(name, **knobs)
    assert words in str(caught.value) and "\n" not in str(caught.value)
