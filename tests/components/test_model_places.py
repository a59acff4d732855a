"""Slots for regularizers, and the ends of residual branches, in torchvision models."""

import copy
from functools import partial

import pytest
import torch
import yaml
from test_model import CIFAR, CONF, config
from test_model import make as make_model
from torch import nn
from torchvision import models

from runner.assemble.fit_weights import load_weights
from runner.assemble.read_weights import InitialWeights
from runner.components.model.surgery import adapt
from runner.engine.parts import ends_branch, fill, is_kept, slots
from runner.engine.weights_file import read_tensors
from runner.errors import ConfigError
from runner.registry import build

make = partial(make_model, "torchvision", shape=CIFAR)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(size=4, shape=CIFAR):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(0))


def made(arch, *, norm="batch", swap=None):
    """Return a model of torchvision for images of 64x64; its vision transformer in small."""
    if arch != "vit":
        return make(arch=arch, shape=(3, 64, 64), norm=norm, swap=swap)
    small = models.VisionTransformer(64, 32, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    relu = partial(build, "activation", config("activation", "relu"))
    norms = build("norm", config("norm", norm))
    return adapt(lambda: small, (3, 64, 64), relu, norms, swap=swap, trained=False, what="it")


def regularize(model, name, **knobs):
    values = yaml.safe_load((CONF / "regularizer" / f"{name}.yaml").read_text())[name] or {}
    return build("regularizer", {"name": name, **values, **knobs}).rewire(model)


@pytest.mark.parametrize(
    ("arch", "places"),
    [
        ("resnet18", {"head": 1, "fc": 0, "block": 8, "residual": 8}),
        ("alexnet", {"head": 1, "fc": 2, "block": 3, "residual": 0}),
        ("squeezenet1_0", {"head": 1, "fc": 0, "block": 8, "residual": 0}),
        ("convnext_tiny", {"head": 1, "fc": 0, "block": 18, "residual": 18}),
        ("vit", {"head": 1, "fc": 2, "block": 0, "residual": 4}),
        ("efficientnet_b0", {"head": 1, "fc": 0, "block": 16, "residual": 9}),
    ],
)
def test_models_have_the_places_that_their_papers_draw(arch, places):
    model = made(arch, swap=[])
    assert {where: len(slots(model, where)) for where in places} == places


class Zero(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "mobilenet_v2", "regnet_y_400mf"])
def test_a_residual_place_holds_the_whole_branch(arch):
    model = make(arch=arch).eval()
    heard = []
    for name, _ in slots(model, "residual"):
        fill(model, name, Zero())
        block = model.get_submodule(".".join(name.split(".")[:-2]))
        while not any(hasattr(block, part) for part in ("downsample", "use_res_connect", "proj", "f")):
            name = name.rpartition(".")[0]
            block = model.get_submodule(name)
        if getattr(block, "downsample", None) is None and getattr(block, "proj", None) is None:
            block.register_forward_hook(lambda _, x, out: heard.append(torch.equal(out, x[0])))
    model(images())  # behind a ReLU x is not negative, and mobilenet_v2 has no activation there
    assert len(heard) >= 4
    assert all(heard)


def test_dropout_takes_the_place_of_the_models_own():
    model = make(arch="alexnet", shape=(3, 64, 64), swap=[])
    assert regularize(model, "dropout", p=0.3, where=["fc", "head"]) == "dropout 0.3 at 3 places (fc, head)"
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3] * 3
    assert regularize(make(arch="squeezenet1_0"), "alpha_dropout", p=0.2) == "alpha dropout 0.2 at 1 place (head)"


def test_stochastic_depth_takes_the_place_of_the_models_own():
    model = make(arch="convnext_tiny", swap=[])
    own = [m.p for m in model.modules() if type(m).__name__ == "StochasticDepth"]
    assert max(own) == pytest.approx(0.1)
    regularize(model, "stochastic_depth", p=0.36)
    rates = [m.p for m in model.modules() if type(m).__name__ == "StochasticDepth"]
    assert rates == pytest.approx([0.02 * depth for depth in range(1, 19)])


def test_what_has_no_place_is_one_line():
    with pytest.raises(ConfigError, match=r"^regularizer.stochastic_depth: the model has no open slot 'residual'"):
        regularize(make(arch="squeezenet1_0"), "stochastic_depth")


def test_a_copy_has_places_of_its_own():
    model = make()
    regularize(model, "dropout", p=0.5)
    average = copy.deepcopy(model).eval()
    assert torch.equal(average(images()), average(images()))
    assert not torch.equal(model(images()), model(images()))


def test_dropconnect_and_the_head_place_live_together():
    model = make()
    regularize(model, "dropout", p=0.5)
    regularize(model, "dropconnect", p=0.5)
    seen = []
    model.fc.slot.register_forward_hook(lambda *_: seen.append(1))
    model(images())
    assert (type(model.fc).__name__, len(seen)) == ("DropConnectLinear", 1)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize(
    ("arch", "block"),
    [
        ("resnet18", "BasicBlock"),
        ("resnet50", "Bottleneck"),
        ("mobilenet_v2", "InvertedResidual"),
        ("vit", "EncoderBlock"),
        ("swin_t", "SwinTransformerBlock"),
        ("convnext_tiny", "CNBlock"),
    ],
)
def test_residual_initialization_makes_blocks_identities(arch, block, norm):
    model = made(arch, norm=norm)
    build("init", config("init", "residual"))(model)
    model.eval()
    same = []
    for module in model.modules():
        if type(module).__name__ == block and getattr(module, "downsample", None) is None:
            module.register_forward_hook(
                lambda _, x, out: same.append(out.shape == x[0].shape and torch.equal(out, x[0]))
            )
    model(images(2, (3, 64, 64)))
    assert sum(same) >= {"resnet18": 5, "resnet50": 12, "mobilenet_v2": 10, "vit": 2, "swin_t": 12}.get(arch, 18)


def test_residual_initialization_sets_the_last_norm_of_each_block_and_leaves_weights_from_a_file(tmp_path):
    model = make()
    assert {name for name, m in model.named_modules() if ends_branch(m)} == {
        f"layer{stage}.{i}.bn2" for stage in range(1, 5) for i in range(2)
    }
    torch.save(model.state_dict(), tmp_path / "w.pt")
    loaded = make()
    weights = InitialWeights(read_tensors(tmp_path / "w.pt", "init_from"), None, "w.pt")
    load_weights(loaded, weights, tuple("0123456789"))
    build("init", config("init", "residual"))(loaded)
    assert is_kept(loaded.layer1[0].bn2.weight)
    assert loaded.layer1[0].bn2.weight.all()


def test_dropconnect_counts_no_layer_that_attention_reads_without_calling_it():
    model = make(arch="swin_t", shape=(3, 64, 64), swap=[])
    called = []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: called.append(1))
    model(images(2, (3, 64, 64)))
    assert (
        regularize(model, "dropconnect", p=0.5, layers=["linear"])
        == f"dropconnect 0.5 at {len(called)} places (linear); 24 of other classes not"
    )
    assert len(called) == 28
