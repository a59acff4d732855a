"""The model: built, rewired, initialized, and described in one line."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import nn

from runner.assemble.fit_weights import load_weights
from runner.assemble.norms import check_norms
from runner.assemble.processes import describe_processes, with_joint_norms
from runner.assemble.read_weights import InitialWeights
from runner.assemble.width import attention_scale, describe_width, twice_as_wide, width_factors, width_ratio
from runner.components.init.layers import listed
from runner.engine.batches import TrainBatches
from runner.engine.contracts import Data, Regularizer
from runner.engine.parametrized import detach_computed
from runner.engine.parts import close_slots, is_kept, notes
from runner.engine.randomness import key
from runner.engine.weights import classifiers, named_kinds
from runner.engine.width import WidthFactor
from runner.errors import ConfigError
from runner.registry import Config, asks, build, build_many
from runner.weight_sources import comes_with_own_parts

# The modules of torch.nn, and one of runner's, whose norms and activations the summary counts.
_COUNTED = (
    "modules.batchnorm",
    "modules.instancenorm",
    "modules.normalization",
    "modules.activation",
    "components.norm",
)
# Parts of the class names of modules that drop values or branches at random, torchvision's among them.
_DROPOUT = ("Drop", "StochasticDepth")


def build_model(
    config: Config,
    data: Data,
    batches: TrainBatches,
    regularizers: list[Regularizer],
    weights: InitialWeights | None = None,
) -> tuple[nn.Module, list[str]]:
    """Return the model on the CPU, with regularizers inserted and weights initialized, and summary lines about it.

    The initialization leaves the `weights` that the model starts from as they are.
    """
    torch.manual_seed(key(config["seed"], "init"))
    model, rewired = construct_model(config, data.shape, len(data.classes), regularizers)
    check_norms(model, data, batches)
    loaded = load_weights(model, weights, data.classes) if weights else []
    context: dict[str, Any] = {"width_ratio": width_ratio(config)}
    if asks("init", config["init"]["name"], "images"):
        context["images"] = next(batches.of_all().stream(0, 1))[0]
    before = _fingerprints(model)
    build("init", config["init"], **context)(model)
    detach_computed(model)
    untouched = _describe_untouched(model, before)
    prior = _set_prior(model, data, batches) if config["init"].get("head") == "prior" else []
    _check_state(model)
    model = with_joint_norms(model, config, batches.world)
    shared = describe_processes(config, batches, model)
    count = sum(parameter.numel() for parameter in model.parameters())
    first = f"{config['model']['name']}: {count:,} parameters; {inventory(model)}"
    return model, [first, *describe_width(config), *notes(model), *loaded, *untouched, *rewired, *prior, *shared]


def construct_model(
    config: Config, shape: tuple[int, int, int], num_classes: int, regularizers: list[Regularizer]
) -> tuple[nn.Module, list[str]]:
    """Return the model on the CPU with regularizers inserted and torch's own weights, and a line for each of these."""
    model: nn.Module = build(
        "model",
        config["model"],
        shape=shape,
        num_classes=num_classes,
        activation=partial(build, "activation", config["activation"]),
        norm=build("norm", config["norm"]),
        attention_scale=attention_scale(config),
        trained=comes_with_own_parts(config["init_from"]),
    )
    rewired = [regularizer.rewire(model) for regularizer in regularizers if regularizer.rewire]
    close_slots(model)
    return model, rewired


def factors_by_width(config: Config, data: Data, model: nn.Module) -> dict[str, WidthFactor] | None:
    """Return what `init=mup` multiplies the learning rate and weight decay of each parameter by, None without it."""
    if width_ratio(config) is None:
        return None
    wide = twice_as_wide(config)
    # Its shapes say which sides of a parameter are widths; no memory is taken, and no random number of the run
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        twice, _ = construct_model(wide, data.shape, len(data.classes), build_many("regularizer", config))
    return width_factors(config, model, twice)


def _fingerprints(model: nn.Module) -> dict[str, tuple[int, int, float]]:
    """Return what tells for each parameter whether it is written: its identity, torch's count of writes and its sum."""
    return {name: (id(p), p._version, float(p.detach().sum())) for name, p in model.named_parameters()}


def _describe_untouched(model: nn.Module, before: dict[str, tuple[int, int, float]]) -> list[str]:
    """Return a summary line about the weights that no initialization has written, besides those from a file.

    Norms start as the identity and biases belong to their weights; neither is listed.
    """
    after, found = _fingerprints(model), dict[str, list[str]]()
    for name, parameter, kinds in named_kinds(model):
        own = kinds - {"norm", "bias"}
        if before.get(name) == after[name] and not is_kept(parameter) and (own or not kinds):
            found.setdefault(next(iter(own), "weight"), []).append(name)
    parts = [f"{len(names)} {kind}{'s' * (len(names) > 1)} ({listed(names)})" for kind, names in found.items()]
    return [f"init: left as constructed: {', '.join(parts)}"] if parts else []


def _check_state(model: nn.Module) -> None:
    """Raise ConfigError for a module whose state has something else than tensors, which checkpoints cannot hold."""
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, torch.Tensor):
            raise ConfigError(f"model: '{name}' in its state is a {type(value).__name__}, must be a tensor")


@torch.no_grad()
def _set_prior(model: nn.Module, data: Data, batches: TrainBatches) -> list[str]:
    """Set the classifier's bias to the log of each class's share of an epoch; return a summary line.

    A classifier from a file stays as it is.

    With weights of zero the first loss is then the entropy of the shares (Karpathy 2019, "init well"). A class without
    examples counts as one, so that its logit is finite.
    """
    sampler = batches.sampler
    epochs = [sampler.draw(batches.seed, epoch).examples for epoch in range(sampler.epochs_per_pass)]
    counts = data.train.labels[torch.cat(epochs)].bincount(minlength=len(data.classes)).clamp_min(1)
    heads = [head for head in classifiers(model) if not head.is_kept]
    for head in heads:
        if not isinstance(bias := head.module.bias, nn.Parameter):
            raise ConfigError("init.head: got 'prior', but this model's classifier has no bias to hold it")
        bias.copy_((counts / counts.sum()).log())
    return ["the classifier starts with the log class frequencies as bias"] if heads else []


def inventory(model: nn.Module) -> str:
    """Return the norms and activations of a model by kind, and its dropout with rates: `20 BatchNorm2d, 17 ReLU`."""
    counts = Counter(type(m).__name__ for m in model.modules() if type(m).__module__.endswith(_COUNTED))
    parts = [f"{count} {kind}" for kind, count in counts.items()]
    return ", ".join([*parts, *_dropouts(model)]) or "no norm, no activation"


def _dropouts(model: nn.Module) -> list[str]:
    """Return, for each kind of dropout with a rate above 0, the number of modules and their range of rates."""
    rates: dict[str, list[float]] = {}
    for module in model.modules():
        rate = getattr(module, "p", getattr(module, "drop_prob", None))
        if isinstance(rate, float) and any(word in type(module).__name__ for word in _DROPOUT):
            rates.setdefault(type(module).__name__, []).append(rate)
    return [f"{len(found)} {kind} of {_range_text(found)}" for kind, found in rates.items() if max(found) > 0]


def _range_text(rates: list[float]) -> str:
    """Return the rates as one number, or as the lowest and the highest."""
    low, high = min(rates), max(rates)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
