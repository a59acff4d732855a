"""Initializations of every kind of layer, through parametrizations, and the list of what they leave as constructed."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch
from running import job
from test_init import config, init
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from runner.assemble import assemble
from runner.engine.parts import notes
from runner.engine.weights import layer_weights, named_kinds
from runner.errors import ConfigError
from runner.registry import build, names

pytestmark = pytest.mark.filterwarnings("ignore:.*norm.* is deprecated:FutureWarning")
OWN = ("cnn", "linear", "mlp", "patch_cnn", "resnet", "resnet9", "vgg", "vit", "wide_resnet", "torchvision")
SHAPES = {"gray": (1, 8, 8), "color": (3, 32, 32), "large": (3, 64, 64)}
PEDAGOGICAL = {"constant", "zeros", "small_normal", "large_normal", "torch_default"}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- fans: the variance of the outputs is the oracle

LAYERS = {
    "conv1d": (nn.Conv1d(64, 128, 5), (32, 64, 40)),
    "conv2d, strided": (nn.Conv2d(32, 64, 3, stride=2), (16, 32, 21, 21)),
    "conv3d, grouped": (nn.Conv3d(16, 32, 3, groups=2), (8, 16, 8, 8, 8)),
    "up 1d": (nn.ConvTranspose1d(64, 32, 4, stride=2, padding=1), (32, 64, 40)),
    "up 2d, grouped": (nn.ConvTranspose2d(32, 64, 2, stride=2, groups=4), (16, 32, 12, 12)),
    "up 3d": (nn.ConvTranspose3d(32, 16, 2, stride=2), (8, 32, 6, 6, 6)),
    "bilinear": (nn.Bilinear(40, 30, 64), (512, 70)),
}


def outputs(layer, inputs):
    return layer(inputs[:, :40], inputs[:, 40:]) if isinstance(layer, nn.Bilinear) else layer(inputs)


@pytest.mark.parametrize("case", LAYERS)
def test_the_outputs_of_every_kind_of_layer_have_the_variance_that_the_fans_promise(case):
    layer, shape = LAYERS[case]
    init("lecun", layer, bias=0.0, head=None)
    assert outputs(layer, torch.randn(shape)).var().item() == pytest.approx(1, rel=0.12)
    assert not layer.bias.any()


@pytest.mark.parametrize("groups", [1, 4])
def test_a_transposed_convolutions_fans_are_counted_per_output_and_per_input(groups):
    layer = nn.ConvTranspose2d(64, 128, 4, stride=2, groups=groups)
    into, out = 64 // groups * 16 / 4, 128 // groups * 16
    for mode, fan in (("fan_in", into), ("fan_out", out)):
        init("kaiming", layer, mode=mode, head=None)
        assert layer.weight.std().item() == pytest.approx(sqrt(2 / fan), rel=0.02)


def test_a_transposed_convolution_is_orthogonal_and_dirac_by_output_channel():
    layer = init("orthogonal", nn.ConvTranspose2d(16, 8, 3), head=None)
    rows = layer.weight.transpose(0, 1).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(8), atol=1e-5, rtol=0)
    layer = init("dirac", nn.ConvTranspose1d(6, 6, 3, padding=1, groups=2), head=None)
    x = torch.randn(2, 6, 9)
    torch.testing.assert_close(layer(x), x)


def test_projections_of_attention_with_other_key_sizes_are_drawn_each_with_its_own_fan():
    attention = nn.MultiheadAttention(128, 4, kdim=64, vdim=32)
    init("kaiming", nn.Sequential(attention, nn.Linear(128, 10)), bias=0.25)
    for name, fan in (("q", 128), ("k", 64), ("v", 32)):
        weight = getattr(attention, f"{name}_proj_weight")
        assert weight.std().item() == pytest.approx(sqrt(2 / fan), rel=0.03)
    assert set(attention.in_proj_bias.tolist()) == {0.25} == set(attention.out_proj.bias.tolist())


# --- parametrizations

NORMED = {"weight_norm": parametrizations.weight_norm, "older weight_norm": weight_norm}
SPECTRAL = {"spectral_norm": parametrizations.spectral_norm, "older spectral_norm": spectral_norm}


def normed(wrap):
    return nn.Sequential(wrap(nn.Conv2d(64, 128, 3)), nn.Flatten(), wrap(nn.Linear(512, 300)))


def applied(net):
    """Return the weights that the layers apply in a forward pass."""
    net[0](torch.zeros(1, 64, 3, 3)), net[2](torch.zeros(1, 512))
    return [net[0].weight, net[2].weight]


@pytest.mark.parametrize("wrap", NORMED)
@pytest.mark.parametrize(
    ("name", "stds"),
    [
        ("kaiming", (sqrt(2 / 576), sqrt(2 / 512))),
        ("lecun", (sqrt(1 / 576), sqrt(1 / 512))),
        ("xavier", (sqrt(2 / (576 + 1152)), sqrt(2 / 812))),
        ("large_normal", (0.05, 0.05)),
        ("zeros", (0.0, 0.0)),
    ],
)
def test_weights_are_drawn_through_weight_norm(wrap, name, stds):
    net = init(name, normed(NORMED[wrap]), head=None)
    for weight, std in zip(applied(net), stds, strict=True):
        assert weight.std().item() == pytest.approx(std, rel=0.02, abs=1e-12)


@pytest.mark.parametrize("wrap", NORMED)
def test_a_plain_layer_and_a_normed_one_get_the_same_weights(wrap):
    plain, other = normed(lambda layer: layer), normed(NORMED[wrap])
    for net in (plain, other):
        torch.manual_seed(1)
        init("orthogonal", net)
    for one, two in zip(applied(plain), applied(other), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("wrap", NORMED)
def test_a_normed_classifier_of_zeros_can_be_trained(wrap):
    net = init("kaiming", normed(NORMED[wrap]), head="zeros")
    loss = cross_entropy(net(torch.randn(20, 64, 4, 4)[..., :4, :4]), torch.arange(20))
    assert loss.item() == pytest.approx(log(300), rel=1e-5)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad.any() for p in net[2].parameters() if p.ndim > 1)


@pytest.mark.parametrize("wrap", NORMED)
def test_lsuv_gives_normed_layers_unit_variance(wrap):
    images = torch.randn(64, 64, 4, 4)
    net = init("lsuv", normed(NORMED[wrap]), images=images, bias=0.0, head=None)
    hidden = net[0](images)
    assert hidden.std().item() == pytest.approx(1, rel=1e-3)
    assert net[2](hidden.flatten(1)).std().item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("wrap", SPECTRAL)
def test_spectral_norm_divides_what_is_drawn_and_the_summary_says_so(wrap):
    net = init("kaiming", normed(SPECTRAL[wrap]).eval(), head=None)
    for weight in applied(net):
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=0.1)  # 15 power iterations
    assert "0.weight, 2.weight drawn, then changed by the parametrization (SpectralNorm)" in notes(net)[0]


@pytest.mark.parametrize("wrap", SPECTRAL)
@pytest.mark.parametrize("name", ["zeros", "lsuv"])
def test_what_spectral_norm_cannot_hold_is_one_line(wrap, name):
    with pytest.raises(ConfigError, match=r"0\.weight.*SpectralNorm|SpectralNorm of 0\.weight") as caught:
        init(name, normed(SPECTRAL[wrap]), images=torch.randn(8, 64, 4, 4))
    assert "\n" not in str(caught.value)


class Fixed(nn.Module):
    """A parametrization without a way back."""

    def forward(self, x):
        return x.tanh()


def test_a_parametrization_without_inverse_is_refused_in_one_line():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.utils.parametrize.register_parametrization(net[0], "weight", Fixed())
    with pytest.raises(ConfigError, match=r"init: cannot set 0\.weight .*Fixed.*torch_default"):
        init("kaiming", net)
    init("torch_default", net)


def test_whiten_writes_through_weight_norm():
    images = torch.randn(64, 1, 8, 8)
    conv = init("whiten", nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 32, 2))), images=images, head=None)[0]
    spread = conv(images).transpose(0, 1).flatten(1)[:4].var(dim=1)
    torch.testing.assert_close(spread, torch.ones(4), atol=0.02, rtol=0)


# --- lsuv


class Attentive(nn.Module):
    """Torch's attention, a shared layer, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.attend, self.shared = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 16)
        self.norm, self.unused, self.head = nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = x.flatten(2).mT
        x = self.shared(self.shared(self.attend(x, x, x, need_weights=False)[0])).mean(1)
        return self.head(self.norm(x).relu())


def test_lsuv_scales_torchs_attention_and_lists_what_is_not_called():
    images = 5 * torch.randn(64, 16, 3, 3)
    net = init("lsuv", Attentive(), images=images, bias=0.0, head=None)
    x = images.flatten(2).mT
    for weight in net.attend.in_proj_weight.chunk(3):
        assert (x @ weight.T).std().item() == pytest.approx(1, rel=1e-3)
    attended = net.attend(x, x, x)[0]
    assert attended.std().item() == pytest.approx(1, rel=1e-3)
    assert net.shared(attended).std().item() == pytest.approx(1, rel=1e-3)
    assert notes(net) == ["init=lsuv: not scaled, because the forward pass does not call them: unused.weight"]
    assert net.norm.running_mean.tolist() == [0] * 16 and int(net.norm.num_batches_tracked) == 0


def test_lsuv_gives_unit_variance_in_training_mode_with_batch_norm():
    images, spreads = torch.rand(64, 1, 8, 8), []
    net = init("lsuv", network("resnet", SHAPES["gray"]), images=images, bias=0.0, head=None)
    for layer in (m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))):
        layer.register_forward_hook(lambda m, i, output: spreads.append(output.std().item()))
    net.train()(images)
    assert len(spreads) == 8 and spreads == pytest.approx([1] * 8, rel=1e-3)


def test_lsuv_is_refused_where_a_layer_has_equal_outputs():
    with pytest.raises(ConfigError, match=r"all outputs of 0\.weight are equal"):
        init("lsuv", nn.Sequential(nn.Conv2d(1, 4, 3)), images=torch.zeros(8, 1, 4, 4), head=None)


# --- every weight is initialized or listed; the first loss


def network(name, shape, norm="batch"):
    return build(
        "model",
        config("model", name),
        shape=shape,
        num_classes=10,
        activation=lambda: build("activation", config("activation", "relu")),
        norm=build("norm", config("norm", norm)),
    )


# Settings that make the large ones small
SMALLER = {
    "resnet9": ["model.width=8"],
    "vgg": ["model.width=8", "model.hidden=[16]"],
    "wide_resnet": ["model.widen=1"],
    "torchvision": ["model.arch=shufflenet_v2_x0_5"],
}


def run_of(model, name):
    size = [
        *SMALLER.get(model, []),
        "data=synthetic",
        "data.kind=shapes",
        "data.size=32",
        "data.train=64",
        "data.batch_size=32",
    ]
    try:
        return assemble(job(f"model={model}", f"init={name}", "augment=[]", *size).config)
    except ConfigError as error:
        assert "init=" in str(error)
        return None


@pytest.mark.parametrize(
    ("model", "name"),
    [(model, name) for model in OWN for name in names("init") if model != "torchvision" or name in ("dirac", "zeros")],
)
def test_every_weight_of_every_model_is_initialized_or_listed(model, name, monkeypatch):
    constructed = {}

    def remember(kind, config, **context):
        if kind == "init":
            return lambda net: (
                constructed.update((n, p.detach().clone()) for n, p in net.named_parameters()),
                build(kind, config, **context)(net),
            )
        return build(kind, config, **context)

    monkeypatch.setattr("runner.assemble.model.build", remember)
    run = run_of(model, name)
    if run is None:
        return
    net = run.learner.model
    (line,) = [line for line in run.summary if line.startswith("init: left as constructed")] or [""]
    same = [n for n, p in net.named_parameters() if torch.equal(p, constructed[n])]
    kinds = {n: kinds for n, _, kinds in named_kinds(net)}
    left = [n for n in same if not kinds[n] & {"bias", "norm"}]
    for n in left[:3]:
        assert n in line
    counted = sum(int(word) for word in line.replace("(", " ").split() if word.isdigit() and word != "0")
    assert (len(left) == 0) == (line == "") and counted >= len(left)


def excess_of_the_first_loss(model, shape, name):
    """Return by how much the untrained loss exceeds that of a guess; None where model, images and init do not fit."""
    images, labels = torch.randn(50, *shape), torch.arange(50) % 10
    try:
        net = init(name, network(model, shape), images=images)
    except ConfigError as error:
        assert any(words in str(error) for words in ("too small", "residual", "no convolution"))
        return None
    with torch.no_grad():
        return cross_entropy(net(images), labels).item() - log(10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", OWN)
def test_training_starts_at_the_loss_of_a_guess(model, shape):
    excess = excess_of_the_first_loss(model, SHAPES[shape], "kaiming")
    assert abs(excess) < 0.15 if excess is not None else model in ("vgg", "patch_cnn")


@pytest.mark.parametrize("name", sorted(set(names("init")) - PEDAGOGICAL - {"kaiming"}))
@pytest.mark.parametrize("model", ["cnn", "linear", "mlp", "resnet", "vit"])
def test_with_other_inits_it_does_too(model, name):
    excesses = [excess_of_the_first_loss(model, SHAPES[shape], name) for shape in ("gray", "color")]
    assert all(abs(excess) < 0.15 for excess in excesses if excess is not None)


def test_inits_that_show_an_effect_treat_the_classifier_as_other_layers():
    heads = {name: config("init", name)["head"] for name in names("init")}
    assert {name for name, head in heads.items() if head is None} == PEDAGOGICAL
    assert {head for head in heads.values() if head is not None} == {"small"}


def test_the_default_config_of_a_small_head_is_what_it_says():
    wide = init("kaiming", nn.Sequential(nn.Linear(64, 64), nn.Linear(4096, 1000)))
    assert wide[1].weight.std().item() == pytest.approx(10 / 4096, rel=0.01)
    usual = init("kaiming", nn.Sequential(nn.Linear(64, 64), nn.Linear(512, 1000)))
    assert usual[1].weight.std().item() == pytest.approx(0.01, rel=0.01)


def test_a_convolution_may_be_the_classifier():
    from torchvision.models import squeezenet1_1

    net = init("kaiming", squeezenet1_1(num_classes=10))
    assert net.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_a_model_without_a_classifier_keeps_its_weights_and_says_so():
    class Raw(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(4, 4))

    net = Raw()
    init("kaiming", net)
    assert "no linear or convolutional classifier" in notes(net)[0]
    assert [weight.name for weight in layer_weights(net)] == ["matrix"]
