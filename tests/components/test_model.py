"""Models: the contract of all, the papers' parameter counts, and slots."""

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


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def config(kind, name, **knobs):
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()) | knobs


def make(name, *, shape=DIGITS, num_classes=10, activation="relu", norm="batch", trained=False, **knobs):
    return build(
        "model",
        config("model", name, **knobs),
        shape=shape,
        num_classes=num_classes,
        activation=lambda: build("activation", config("activation", activation)),
        norm=build("norm", config("norm", norm)),
        trained=trained,
    )


@pytest.fixture(params=names("model"))
def name(request):
    if request.param == "timm":
        pytest.importorskip("timm")
    return request.param


def shape_of(name):
    # torch leaves bf16 weight gradients of strided convolutions on 1x1 maps unset on some CPUs: larger for torchvision
    return CIFAR if name in ("vgg", "torchvision", "patch_cnn") else DIGITS


def batch(shape=DIGITS, size=4):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(size)


def test_logits_have_one_column_per_class_and_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    model = make(name, shape=shape_of(name), num_classes=7)
    images, labels = batch(shape_of(name))
    logits = model(images)
    assert logits.shape == (4, 7)
    cross_entropy(logits, labels).backward()
    if name == "timm":
        # The last norm of each block begins at zero, and passes gradients on after one step
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        cross_entropy(model(images), labels).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_seed_fixes_the_weights_and_a_state_dict_carries_them(name):
    def drawn(seed):
        torch.manual_seed(seed)
        return make(name, shape=shape_of(name))

    one, same, other = drawn(0), drawn(0), drawn(1)
    images, _ = batch(shape_of(name))
    assert torch.equal(one(images), same(images))
    assert not torch.equal(one(images), other(images))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(images), other.eval()(images))


def test_bfloat16_autocast_trains(name):
    model = make(name, shape=shape_of(name))
    images, labels = batch(shape_of(name))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
        loss = cross_entropy(logits, labels)
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in model.parameters())


OURS = sorted(set(names("model")) - {"linear", "torchvision", "timm"})  # those that are given an activation and a norm


@pytest.mark.parametrize("norm", names("norm"))
def test_evaluation_of_an_image_does_not_depend_on_its_batch_mates(norm):
    model = make("resnet", norm=norm)
    images, _ = batch(size=8)
    trained = model(images)
    model.eval()
    torch.testing.assert_close(model(images)[:1], model(images[:1]))
    if norm == "batch":
        assert not torch.allclose(trained[:1], model(images[:1]), atol=1e-3)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("activation", ["prelu", "tanh"])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_every_model_of_ours_takes_any_activation_and_norm(ours, activation, norm):
    model = make(ours, shape=shape_of(ours), activation=activation, norm=norm)
    images, labels = batch(shape_of(ours))
    cross_entropy(model(images), labels).backward()
    acts = [m for m in model.modules() if isinstance(m, (nn.PReLU, nn.Tanh))]
    assert acts and len(acts) == len(set(map(id, acts)))
    assert not any(isinstance(m, (nn.ReLU, nn.GELU, nn.BatchNorm2d)) for m in model.modules())
    assert any(isinstance(m, (nn.GroupNorm, nn.LayerNorm)) for m in model.modules()) == (norm == "layer")
    assert all(p.grad is not None for p in model.parameters())


def test_layers_have_a_bias_only_where_no_norm_follows():
    for name in ("mlp", "cnn", "resnet", "wide_resnet", "resnet9"):
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
    assert marks(make("vit", depth=3)) == {"head": 1, "fc": 3, "block": 0, "residual": 6}
    assert marks(make("wide_resnet", depth=16)) == {"head": 1, "fc": 0, "block": 6, "residual": 6}
    assert marks(make("resnet9")) == {"head": 1, "fc": 0, "block": 3, "residual": 2}
    assert marks(make("patch_cnn", shape=CIFAR)) == {"head": 1, "fc": 0, "block": 3, "residual": 0}
    assert marks(make("vgg", shape=CIFAR)) == {"head": 1, "fc": 2, "block": 5, "residual": 0}
    assert marks(make("resnet", depth=14)) == {"head": 1, "fc": 0, "block": 6, "residual": 6}
    for block in (m for m in make("resnet").modules() if isinstance(m, Residual)):
        assert isinstance(block.branch[-1], Slot) and block.branch[-1].where == "residual"


@pytest.mark.parametrize(
    ("name", "knobs", "words"),
    [
        ("resnet", {"depth": 19}, "model.depth: got 19, must be 6n+2"),
        ("resnet", {"depth": 20, "stem": "imagenet"}, "model.depth: got 20, must be 18, 34, 50, 101 or 152"),
        ("resnet", {"depth": 18, "stem": "imagenet"}, "images of 8x8 are too small, its 5 halvings need 32x32"),
        ("cnn", {"channels": [8] * 4}, "images of 8x8 are too small, its 4 halvings need 16x16"),
        ("vgg", {}, "images of 8x8 are too small, its 5 halvings need 32x32"),
        ("wide_resnet", {"depth": 20}, "model.depth: got 20, must be 6n+4"),
        ("vit", {"patch": 5}, "model.patch: got 5, must divide both sides of images of 8x8"),
        ("vit", {"heads": 3}, "model.heads: got 3, must divide model.dim (128)"),
        ("torchvision", {"arch": "resnet19"}, "unknown torchvision model 'resnet19'; did you mean 'resnet18'?"),
        ("torchvision", {"arch": "squeezenet1_1"}, "torchvision's squeezenet1_1 does not take images of 8x8"),
        ("torchvision", {"arch": "vit_b_16"}, "torchvision's vit_b_16 does not take images of 8x8"),
        ("cnn", {"kernel": 4}, "model.kernel: got 4, must be odd"),
    ],
)
def test_what_cannot_be_built_is_one_line(name, knobs, words):
    with pytest.raises(ConfigError) as caught:
        make(name, **knobs)
    assert words in str(caught.value) and "\n" not in str(caught.value)
