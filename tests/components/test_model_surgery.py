"""Surgery on models of torchvision and timm: swapped activations and norms, equal models, errors, weights."""

import copy
from functools import partial

import pytest
import torch
from test_model import CIFAR, config
from test_model import make as make_model
from torch import nn
from torch.nn import functional
from torchvision import models

from runner.components.model.surgery import adapt
from runner.engine.parts import notes
from runner.errors import ConfigError
from runner.registry import build, names

make = partial(make_model, "torchvision", shape=CIFAR)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(size=4, shape=CIFAR):
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(0))


def calls(model, x):
    """Return how often each kind of module without children ran in one forward pass, from hooks."""
    counts = {}

    def heard(module, *_):
        counts[type(module).__name__] = counts.get(type(module).__name__, 0) + 1

    handles = [m.register_forward_hook(heard) for m in model.modules()]
    model(x)
    for handle in handles:
        handle.remove()
    return counts


def adapted(model, *, activation="relu", norm="batch", shape=CIFAR, swap=None, trained=False):
    maker = partial(build, "activation", config("activation", activation))
    return adapt(
        lambda: model, shape, maker, build("norm", config("norm", norm)), swap=swap, trained=trained, what="the model"
    )


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "densenet121", "googlenet", "mobilenet_v3_small"])
@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_keeps_its_parts_computes_what_torchvision_computes_under_torchvisions_names(arch, training):
    model = make(arch=arch, swap=[])
    kwargs = {"aux_logits": False, "init_weights": False} if arch == "googlenet" else {}
    plain = models.get_model(arch, weights=None, num_classes=10, **kwargs)
    plain.load_state_dict(model.state_dict())
    for m in (*model.modules(), *plain.modules()):
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    x = images()
    torch.testing.assert_close(model.train(training)(x), plain.train(training)(x), rtol=1e-5, atol=1e-5)


def test_the_default_parts_change_nothing_of_a_resnet():
    model, plain = make(), models.resnet18(num_classes=10)
    plain.load_state_dict(model.state_dict())
    assert notes(model) == []
    assert torch.equal(model(images()), plain(images()))


def test_a_swapped_resnet_is_the_one_built_by_hand():
    model = make(activation="gelu", norm="group")
    plain = models.resnet18(num_classes=10, norm_layer=lambda channels: nn.GroupNorm(8, channels))
    for module in plain.modules():
        if hasattr(module, "relu"):
            module.relu = nn.GELU()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(images()), plain(images()))
    assert notes(model) == ["20 BatchNorm2d -> GroupNorm, 17 ReLU -> GELU"]


@pytest.mark.parametrize(
    ("arch", "sites"), [("resnet18", 17), ("densenet121", 121), ("googlenet", 57), ("shufflenet_v2_x0_5", 37)]
)
def test_every_place_runs_an_activation_of_its_own_and_none_is_called_as_a_function(arch, sites, monkeypatch):
    model = make(arch=arch, activation="prelu")
    monkeypatch.setattr(functional, "relu", None)  # whoever calls it now fails
    assert calls(model, images())["PReLU"] == sites
    slopes = [m.weight for m in model.modules() if isinstance(m, nn.PReLU)]
    assert len(set(slopes)) == sites
    model(images()).square().sum().backward()
    assert all(slope.grad is not None for slope in slopes)


@pytest.mark.parametrize("norm", names("norm"))
@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "squeezenet1_0", "efficientnet_b0"])
def test_gradients_reach_every_parameter_under_every_norm(arch, norm):
    model = make(arch=arch, norm=norm, activation="silu", shape=(3, 64, 64))
    model(images(2, (3, 64, 64))).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def vit():
    return models.VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)


def test_new_norms_are_norms_to_the_optimizer_and_travel_in_the_state():
    model = adapted(vit())
    optimizer = build("optim", config("optim", "adamw"), model=model, fused=True)
    free = {p for group in optimizer.param_groups if group["name"] == "no_decay" for p in group["params"]}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 5
    assert {p for m in norms for p in m.parameters()} <= free
    model(images())
    other = adapted(vit())
    other.load_state_dict(model.state_dict())
    x = images()
    assert torch.equal(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize("axes", [(0, 1), (0, 1, 2)])
def test_norms_of_tokens_and_of_channels_last_act_on_the_channels(axes):
    model = adapted(Around(nn.LayerNorm(6), len(axes)), norm="batch", shape=(6, 5, 4), activation="relu")
    x = 3 * images(8, (6, 5, 4)) + 1
    tokens = x.movedim(1, -1).flatten(1, 2) if len(axes) == 2 else x.movedim(1, -1)
    mean, variance = tokens.mean(axes), tokens.var(axes, unbiased=False)
    model(x)
    torch.testing.assert_close(model.seen, (tokens - mean) / (variance + 1e-5).sqrt(), rtol=1e-4, atol=1e-4)


class Around(nn.Module):
    """A norm of tokens (B, N, C) or of maps (B, H, W, C), and a classifier."""

    def __init__(self, norm, axes):
        super().__init__()
        self.norm, self.axes, self.fc = norm, axes, nn.Linear(6, 3)

    def forward(self, x):
        x = x.movedim(1, -1)
        self.seen = self.norm(x.flatten(1, 2) if self.axes == 2 else x)
        return self.fc(self.seen.flatten(1, -2).mean(1))


@pytest.mark.parametrize(("arch", "norms"), [("convnext_tiny", 23), ("swin_t", 29)])
def test_layer_norms_over_channels_stay_so(arch, norms):
    eps = {"convnext_tiny": 1e-6, "swin_t": 1e-5}[arch]
    plain = models.get_model(arch, weights=None, num_classes=10)
    twin = copy.deepcopy(plain)
    maker = build("norm", config("norm", "layer", eps=eps))
    gelu = partial(build, "activation", config("activation", "gelu"))
    model = adapt(lambda: plain, (3, 64, 64), gelu, maker, swap=None, trained=True, what="the model")  # no change
    assert sum(isinstance(m, nn.LayerNorm) for m in model.modules()) == norms
    x = images(2, (3, 64, 64))
    assert torch.equal(model.eval()(x), twin.eval()(x))


def test_layers_whose_norm_goes_get_a_bias():
    model = make(norm="none")
    assert notes(model) == ["20 BatchNorm2d -> Identity, 20 layers given a bias"]
    assert all(m.bias is not None and not m.bias.any() for m in model.modules() if isinstance(m, nn.Conv2d))


def test_a_model_without_norms_gets_them_as_vgg_has_them():
    stages = [8, "M", 16, 16, "M"]
    model, plain = models.VGG(models.vgg.make_layers(stages)), models.vgg.make_layers(stages, batch_norm=True)
    model.classifier = nn.Sequential(nn.Linear(16 * 49, 8), nn.ReLU(), nn.Linear(8, 3))
    adapted(model)
    assert notes(model) == ["3 BatchNorm2d inserted before activations, 1 BatchNorm1d inserted before activations"]
    theirs = [m for m in plain if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    ours = [m for m in model.features.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for mine, other in zip(ours, theirs, strict=True):
        other.load_state_dict(mine.state_dict())
    x = images()
    torch.testing.assert_close(model.features(x), plain(x))


def test_gates_stay():
    model = make(arch="mobilenet_v3_small", activation="tanh")
    seen = calls(model, images(2))
    assert (seen["Tanh"], seen["Hardsigmoid"]) == (33, 9)
    norms = "34 BatchNorm2d (eps 0.001) -> BatchNorm2d (eps 1e-05)"
    assert notes(model) == [f"{norms}, 19 Hardswish -> Tanh, 14 ReLU -> Tanh", "9 Hardsigmoid kept: they are gates"]


class Calling(nn.Module):
    """Two convolutions with functions between them, the second of which gates."""

    def __init__(self, act=functional.silu):
        super().__init__()
        self.conv1, self.conv2, self.fc, self.act = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3), act

    def forward(self, x):
        x = self.act(self.conv2(self.act(self.conv1(x))))
        return self.fc((x * torch.sigmoid(x)).mean((2, 3)))


def test_activations_called_as_functions_are_one_true_line():
    with pytest.raises(ConfigError) as caught:
        adapted(Calling(), activation="gelu", norm="none")
    assert str(caught.value) == (
        "model.arch: the model calls silu as a function at 2 places, which activation= (GELU) cannot replace; "
        "model.swap=[norm] keeps it"
    )
    adapted(Calling(), activation="silu", norm="none")
    adapted(Calling(), activation="gelu", norm="none", swap=["norm"])
    with pytest.raises(ConfigError, match="leaky_relu"):
        adapted(Calling(partial(functional.leaky_relu, negative_slope=0.2)), activation="leaky_relu", norm="none")


def test_norms_called_as_functions_are_one_true_line():
    model = Calling(lambda x: functional.layer_norm(x.relu(), x.shape[1:]))
    with pytest.raises(ConfigError, match="calls layer_norm as a function at 2 places, which norm= cannot replace"):
        adapted(model)


class Sharing(nn.Sequential):
    """One activation at two places."""

    def __init__(self):
        act = nn.ReLU()
        super().__init__(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 8), nn.Linear(8, 3))
        self.append(act)

    def forward(self, x):
        return self[3](self[4](self[2](self[1](self[4](self[0](x))))))


def test_one_module_at_two_places_takes_an_activation_without_weights_only():
    assert calls(adapted(Sharing(), activation="gelu", norm="none"), images())["GELU"] == 2
    with pytest.raises(ConfigError, match=r"has one ReLU at 2 places, which activation= \(PReLU, with weights\)"):
        adapted(Sharing(), activation="prelu", norm="none")


class BatchNormAct2d(nn.BatchNorm2d):
    """A norm with its activation inside, as timm's."""

    def __init__(self, channels):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_a_fused_norm_is_split_where_it_must_be():
    def fused():
        layers = nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        return nn.Sequential(*layers)

    kept = adapted(fused(), activation="tanh")
    assert list(kept.state_dict()) == list(fused().state_dict())
    split = adapted(fused(), activation="tanh", norm="group")
    by_hand = nn.Sequential(kept[0], nn.GroupNorm(8, 8), nn.Tanh(), *kept[2:])
    split.load_state_dict({**split.state_dict(), **{k: v for k, v in kept.state_dict().items() if k[0] in "04"}})
    assert torch.equal(split(images()), by_hand(images()))
    assert notes(split) == ["1 BatchNormAct2d -> GroupNorm, 1 ReLU -> Tanh"]
    x = images()
    torch.testing.assert_close(kept(x), nn.Sequential(*kept[:1], nn.BatchNorm2d(8), nn.Tanh(), *kept[2:])(x))


@pytest.mark.parametrize("arch", ["convnext_tiny", "swin_t"])
def test_norms_over_the_channels_of_a_token_or_pixel_become_rms_norms_over_them(arch):
    kept, model = (
        make(arch=arch, swap=[], shape=(3, 64, 64)),
        make(arch=arch, norm="rms", swap=["norm"], shape=(3, 64, 64)),
    )
    places = {name for name, m in kept.named_modules() if isinstance(m, nn.LayerNorm)}
    assert places == {name for name, m in model.named_modules() if isinstance(m, nn.RMSNorm)} and len(places) > 20
    assert not any(isinstance(m, nn.LayerNorm) for m in model.modules())


def test_weights_are_not_given_other_parts_unless_that_is_said():
    with pytest.raises(ConfigError) as caught:
        make(arch="mobilenet_v3_small", trained=True)
    assert "were trained with other parts (34 BatchNorm2d (eps 0.001) -> BatchNorm2d (eps 1e-05)" in str(caught.value)
    assert "19 Hardswish -> ReLU); model.swap=[] keeps them" in str(caught.value)
    kept = make(arch="mobilenet_v3_small", trained=True, swap=[])
    assert calls(kept, images(2))["Hardswish"] == 19
    swapped = make(arch="mobilenet_v3_small", trained=True, swap=["activation", "norm"])
    assert calls(swapped, images(2))["ReLU"] == 33


def test_what_does_not_act_is_said():
    assert notes(make(activation="gelu", swap=["norm"])) == [
        "activation= has no effect: model.swap keeps the model's own (17 ReLU)"
    ]


def test_images_that_leave_one_pixel_to_a_norm_per_example_are_one_line():
    with pytest.raises(ConfigError, match="resnet18 does not run on images of 32x32 with the norm asked for") as caught:
        make(norm="instance")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_an_activation_whose_output_is_changed_in_place_has_a_backward_pass(activation, drop):
    from torchvision.ops import StochasticDepth

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.drop = nn.Conv2d(3, 3, 1), nn.SiLU(), StochasticDepth(drop, "row")
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            out = self.drop(self.act(self.conv(x)))
            out += x
            return self.head(out.mean((2, 3)))

    model = adapted(Block(), activation=activation, swap=["activation"])
    # As a rate that grows from 0 does
    model.drop.own.p = 0.0
    x = images()
    model(x).sum().backward()
    given = build("activation", config("activation", activation))(model.conv(x))
    want = torch.autograd.grad(model.head((given + x).mean((2, 3))).sum(), model.conv.weight)[0]
    torch.testing.assert_close(model.conv.weight.grad, want)


@pytest.mark.parametrize("arch", ["efficientnet_v2_s"])
def test_networks_that_change_activations_in_place_train_with_the_default_activation(arch):
    model = make(arch=arch)
    model(images(2)).sum().backward()
