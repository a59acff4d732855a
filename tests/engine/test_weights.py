"""Which tensors are weights of layers, and that penalties, max_norm, decay, Muon and the update ratio agree on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from torchvision import models

from runner import (
    components,  # noqa: F401  (registers all)
    numerics,
)
from runner.components.optim.describe_groups import describe
from runner.engine.contracts import Outcome, Watched
from runner.engine.weights import classifiers, layer_weights, named_kinds, trainable_weights
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
# Regnets cannot be built without memory; they have no tokens
ARCHS = [name for name in models.list_models(module=models) if not name.startswith("regnet")]


def knobs(kind: str, name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()), **changes}


def regularizer(name: str, **changes: Any) -> Any:
    # A pick-many option has its name above its knobs
    loaded = yaml.safe_load((CONF / "regularizer" / f"{name}.yaml").read_text())
    return build("regularizer", {"name": name, **(loaded.get(name) or loaded), **changes})


def optimizer(name: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return build("optim", knobs("optim", name, **changes), model=model, fused=None)


class Everything(nn.Module):
    """A tensor of each kind, under the names that libraries use."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(3, 4), nn.Conv1d(3, 4, 1)
        self.up, self.both = nn.ConvTranspose2d(2, 3, 2), nn.Bilinear(2, 3, 4)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.recurrent, self.words = nn.LSTM(3, 4), nn.Embedding(7, 4)
        self.norm, self.slope = nn.BatchNorm2d(3), nn.PReLU(3)
        self.pos_embed, self.pos_embedding = nn.Parameter(torch.ones(1, 9, 4)), nn.Embedding(9, 4)
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
        self.cls_token, self.class_token = nn.Parameter(torch.ones(1, 1, 4)), nn.Parameter(torch.ones(1, 3, 4))
        self.layer_scale, self.gamma = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(4))
        self.logit_scale, self.temperature = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(2, 1, 1))
        self.grid = nn.Parameter(torch.ones(1, 4, 5, 5))
        self.matrix = nn.Parameter(torch.ones(4, 4))
        self.normed = parametrizations.weight_norm(nn.Linear(3, 4))


KINDS = {
    "bias": {
        *("linear.bias", "conv.bias", "up.bias", "both.bias", "normed.bias"),
        *("attention.in_proj_bias", "attention.bias_k", "attention.bias_v", "attention.out_proj.bias"),
        *("recurrent.bias_ih_l0", "recurrent.bias_hh_l0", "norm.bias"),
    },
    "norm": {"norm.weight", "norm.bias"},
    "prelu": {"slope.weight"},
    "position": {"pos_embed", "pos_embedding.weight", "relative_position_bias_table", "grid"},
    "token": {"cls_token", "class_token"},
    "scale": {"layer_scale", "gamma", "logit_scale", "temperature"},
}
WEIGHTS = {
    *("linear.weight", "conv.weight", "up.weight", "both.weight", "words.weight", "matrix"),
    *("attention.in_proj_weight", "attention.out_proj.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0"),
}


def test_each_tensor_has_its_kinds() -> None:
    found = {name: set(kinds) for name, _, kinds in named_kinds(Everything())}
    for kind, expected in KINDS.items():
        assert {name for name, kinds in found.items() if kind in kinds} == expected
    holders = {f"normed.parametrizations.weight.original{i}" for i in (0, 1)}
    assert {name for name, kinds in found.items() if not kinds} == WEIGHTS | holders
    assert {weight.name for weight in layer_weights(Everything())} == {*WEIGHTS, "normed.weight"}


def test_a_layer_called_norm_that_multiplies_a_matrix_is_no_norm() -> None:
    class NormalizedLinear(nn.Linear):
        """A linear layer whose class has Norm in its name."""

    class NormedScale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

    net = nn.Sequential(NormalizedLinear(3, 4), NormedScale())
    assert [set(kinds) for _, _, kinds in named_kinds(net)] == [set(), {"bias"}, {"norm"}]


# --- the models of torchvision, against the rule before: two or more dimensions and not in a norm


def of_two_dimensions(model: nn.Module) -> set[str]:
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        if "Norm" not in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim >= 2
    }


@pytest.mark.parametrize("arch", ARCHS)
def test_the_change_of_numbers_concerns_the_models_whose_penalized_tensors_changed(arch: str) -> None:
    words: dict[str, Any] = {"num_classes": 10, "weights": None}
    words |= {"aux_logits": False, "init_weights": False} if arch in ("googlenet", "inception_v3") else {}
    with torch.device("meta"):
        model = models.get_model(arch, **words)
    found = {name: set(kinds) for name, _, kinds in named_kinds(model)}
    others = of_two_dimensions(model) - {weight.name for weight in layer_weights(model)}
    assert {weight.name for weight in layer_weights(model)} <= of_two_dimensions(model)
    assert all(found[name] & {"position", "token", "scale"} for name in others)
    config = {"model": {"name": "torchvision", "arch": arch}, "regularizer": {"l2": {}}, "optim": {"name": "muon"}}
    assert numerics.check_unchanged(config, 2, "here", accept=True) == bool(others)
    unpenalized = {**config, "regularizer": {"dropout": {}}}
    assert not numerics.check_unchanged(unpenalized, 2, "here", accept=True)
    # What a saved `no_decay: [bias, norm]` means has not changed
    for name, kinds in found.items():
        assert ("bias" in kinds) == name.endswith("bias")


@pytest.mark.parametrize(
    ("model", "option", "optim", "changed"),
    [
        ("vit", "l1", "sgd", True),
        ("vit", "dropout", "muon", False),
        ("resnet", "max_norm", "muon", False),
        ("timm", "elastic_net", "sgd", True),
        ("timm", "dropout", "muon_sgd", True),
        ("timm", "dropout", "adamw", False),
        ("my_own", "l2", "sgd", True),
        ("my_own", "dropout", "muon", True),
        ("my_own", "dropout", "sgd", False),
    ],
)
def test_which_configs_the_change_concerns(model: str, option: str, optim: str, changed: bool) -> None:
    config = {"model": {"name": model}, "regularizer": {option: {}}, "optim": {"name": optim}}
    assert numerics.check_unchanged(config, 2, "here", accept=True) is changed
    assert not numerics.check_unchanged(config, 3, "here", accept=True)


# --- penalties and constraints, against sums by hand


def vit() -> nn.Module:
    torch.manual_seed(0)
    return build(
        "model",
        knobs("model", "vit", dim=8, depth=1, heads=2),
        shape=(1, 8, 8),
        num_classes=10,
        activation=nn.PReLU,
        norm=build("norm", knobs("norm", "layer")),
    )


def matrices(model: nn.Module) -> list[torch.Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


def test_penalties_sum_the_matrices_and_kernels_of_a_transformer() -> None:
    model = vit()
    one = sum(weight.abs().sum() for weight in matrices(model))
    two = sum(weight.square().sum() for weight in matrices(model))
    for name, words, expected in (
        ("l1", {"strength": 0.5}, 0.5 * one),
        ("l2", {"strength": 0.5}, 0.25 * two),
        ("elastic_net", {"strength": 0.5, "beta": 2.0}, 0.5 * (2 * two + one)),
    ):
        torch.testing.assert_close(regularizer(name, **words).penalty(model), expected)
    regularizer("l1").penalty(model).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any("token" in name or "positions" in name or "norm" in name or "bias" in name for name in moved)


def test_max_norm_leaves_positions_and_tokens_alone() -> None:
    model = vit()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    regularizer("max_norm", limit=0.5).constrain(model)
    assert model.embed.positions.unique().tolist() == [1.0] == model.embed.token.unique().tolist()
    for weight in matrices(model):
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.full((len(weight),), 0.5))


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, weight_norm])
def test_penalties_and_max_norm_act_on_the_weight_that_a_normed_layer_applies(wrap: Any) -> None:
    torch.manual_seed(0)
    layer = wrap(nn.Linear(5, 3))
    weight = layer(torch.eye(5)).detach().T - layer.bias.detach()[:, None]
    penalty = regularizer("l2", strength=2.0).penalty(layer)
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    # |w|^2 is the sum of the squared magnitudes: their gradient is 2 g
    (magnitude,) = [p for p in layer.parameters() if p.shape == (3, 1)]
    torch.testing.assert_close(magnitude.grad, 2 * magnitude.detach())
    regularizer("max_norm", limit=0.1).constrain(layer)
    after = layer(torch.eye(5)).T - layer.bias[:, None]
    torch.testing.assert_close(after.norm(dim=1), torch.full((3,), 0.1))


@pytest.mark.parametrize("groups", [1, 2])
def test_max_norm_bounds_what_reaches_an_output_channel_of_a_transposed_convolution(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=groups, bias=False)
    regularizer("max_norm", limit=0.1).constrain(layer)
    taps = layer(torch.eye(4)[:, :, None, None])
    torch.testing.assert_close(taps.square().sum((0, 2, 3)).sqrt(), torch.full((6,), 0.1))


def test_reading_a_weight_for_a_penalty_makes_no_power_iteration() -> None:
    layer = parametrizations.spectral_norm(nn.Linear(5, 3))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    regularizer("l2").penalty(layer)
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    assert layer.training and layer.parametrizations.weight[0].training


# --- decay, Muon, probe


@pytest.mark.parametrize("name", names("optim"))
def test_by_default_only_weights_of_layers_decay(name: str) -> None:
    model = Everything()
    optim = optimizer(name, model)
    kinds = {parameter: found for _, parameter, found in named_kinds(model)}
    for group in optim.param_groups:
        assert all(bool(kinds[parameter]) != group["decays"] for parameter in group["params"])
        assert group["decays"] or group["weight_decay"] == 0


def test_a_saved_no_decay_means_what_it_meant() -> None:
    groups = {group["name"]: group for group in optimizer("sgd", vit(), no_decay=["bias", "norm"]).param_groups}
    held = {id(parameter): name for name, parameter in vit().named_parameters()}
    assert held and len(groups["decay"]["params"]) == len(matrices(vit())) + 3  # positions, token, PReLU
    assert groups["decay"]["kinds"] == "1 prelu, 1 position, 1 token"


def test_the_summary_shows_what_a_group_holds_besides_weights() -> None:
    lines = {line.partition(":")[0]: line for line in describe(optimizer("adamw", vit()))}
    model = vit()
    norms = sum(2 for module in model.modules() if isinstance(module, nn.LayerNorm))
    biases = sum(1 for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d)))
    assert f"({biases} bias, {norms} norm, 1 prelu, 1 position, 1 token)" in lines["no_decay"]
    assert "(" not in lines["decay"]


def test_muon_takes_weights_of_layers_only() -> None:
    class Gained(nn.Conv2d):
        """A convolution with a gain per kernel, as in norm-free networks."""

        def __init__(self) -> None:
            super().__init__(4, 4, 1)
            self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))

    model = nn.Sequential(Gained(), nn.MultiheadAttention(4, 2, add_bias_kv=True), nn.Embedding(5, 4), nn.Linear(4, 2))
    names = {parameter: name for name, parameter in model.named_parameters()}
    chosen = [p for group in optimizer("muon", model).param_groups if group["orthogonal"] for p in group["params"]]
    assert {names[p] for p in chosen} == {"0.weight", "1.in_proj_weight", "1.out_proj.weight"}


def test_the_update_ratio_has_the_same_weights() -> None:
    model = vit()
    probe = build("probe", {"name": "update_ratio", "every": 1, "norm": "l2"})
    watch = probe.watch(Watched(model, dict(model.named_parameters()), torch.zeros(1), torch.zeros(1), 0))
    next(watch)
    with pytest.raises(StopIteration) as ended:
        watch.send(Outcome(torch.zeros(()), None))
    numbers = ended.value.value["ratio"]
    tags = numbers.to_scalars([1.0] * len(numbers.tensors))
    expected = {weight.name for weight in trainable_weights(model)} | {"_global"}
    assert {tag.removeprefix("ratio/l2/") for tag in tags if tag.startswith("ratio/l2/")} == expected
    assert len(expected) == len(matrices(model)) + 1


def test_the_classifier_is_what_a_model_says_it_is() -> None:
    class Distilled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.head_dist, self.after = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 4)

        def get_classifier(self) -> tuple[nn.Module, nn.Module]:
            return self.head, self.head_dist

    for model, expected in (
        (nn.Sequential(Distilled()), ["0.head.weight", "0.head_dist.weight"]),
        (nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 2, 1)), ["0.weight"]),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)), ["1.weight"]),
        (nn.ReLU(), []),
    ):
        assert [weight.name for weight in classifiers(model)] == expected
