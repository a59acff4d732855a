"""The weights of layers: which tensors of a model are weights, and of what kind the others are.

A *weight* multiplies the inputs of a layer: the matrix or kernel of a linear, convolutional, bilinear, attention,
recurrent or embedding layer, and a tensor of a user's own module that is none of the following kinds.

- `bias`: biases
- `norm`: weights and biases of normalization layers
- `prelu`: slopes of PReLU
- `position`: learned positions and tables of relative positions
- `token`: class tokens and other learned tokens
- `scale`: factors on channels, heads or branches (layer scale)

Penalties, constraints, weight decay, Muon, initializations and the update ratio share this definition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, get_args

from torch import Tensor, nn

from runner.engine.parametrized import PARAMETRIZED, LayerWeight, tensor_names, tensor_of
from runner.engine.parts import CONVOLUTIONS, WEIGHT_LAYERS, is_norm_class

Kind = Literal["bias", "norm", "prelu", "position", "token", "scale"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Names of tensors in torchvision, timm and common code
_POSITION = re.compile(
    r"(^|_)(pos|positions?|positional|pe|rpe|rel|relative|rope|freqs)\d*(_|$)|pos(ition)?_?(emb|enc)|attention_bias"
)
_TOKEN = re.compile(r"token|(^|_)(cls|class|dist|registers?|latents?|prompts?)(_|$)")
_SCALE = re.compile(r"(^|_)(gamma|layer_?scale|scale|gain|temperature|alpha|beta)(_?\d+)?(_|$)")
_MATRIX = re.compile(r"weight|kernel")
# What an embedding of positions is called, or its class
_POSITIONS = re.compile(r"(^|_)pos(ition(s|al)?)?(_|$)|pos(ition(al)?)?_?(emb|enc)", re.IGNORECASE)


def layer_weights(model: nn.Module) -> Iterator[LayerWeight]:
    """Yield the weights of a model's layers, each once, in order of definition; a parametrized one as a whole."""
    seen: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        # Penalties ask in each step: most modules have no tensors
        if not (module._parameters or hasattr(module, PARAMETRIZED)) or PARAMETRIZED in path.split("."):
            continue
        for attribute in tensor_names(module):
            weight = LayerWeight(module, path, attribute)
            held = weight.parameters
            if held and not _kinds_of(path, module, attribute, held[-1]) and not seen.issuperset(held):
                seen.update(held)
                yield weight


def trainable_weights(model: nn.Module) -> list[LayerWeight]:
    """Return the weights of layers that are trained now."""
    return [weight for weight in layer_weights(model) if weight.is_trained]


def named_kinds(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, frozenset[Kind]]]:
    """Yield name, parameter and kinds of each parameter, a tied one once; a weight of a layer has no kind.

    What holds a parametrized tensor is of that tensor's kinds.
    """
    seen: set[nn.Parameter] = set()
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            owner = _owner(path)
            attribute = tensor_of(module, name) if owner == path else path[len(owner) :].split(".")[-1]
            yield f"{path}.{name}".lstrip("."), parameter, _kinds_of(owner, modules[owner], attribute, parameter)


def _owner(path: str) -> str:
    """Return the name of the module that a parametrization belongs to; of any other module its own name."""
    return f".{path}.".partition(f".{PARAMETRIZED}.")[0].strip(".") if f".{PARAMETRIZED}." in f".{path}." else path


def _kinds_of(path: str, module: nn.Module, attribute: str, parameter: Tensor) -> frozenset[Kind]:
    """Return the kinds of a module's tensor, none for a weight of a layer."""
    layer: type = type(module)
    is_position = False
    if isinstance(module, nn.Embedding):
        is_position = bool(_POSITIONS.search(path.rpartition(".")[2]))
    found = _kinds_in(layer, attribute)
    if is_position:
        return found | {"position"}
    if found or (issubclass(layer, WEIGHT_LAYERS) and _MATRIX.search(attribute)):
        return found
    own = _kind_by_shape(module, attribute, parameter)
    return frozenset({own} if own else ())


@lru_cache(maxsize=4096)
def _kinds_in(layer: type, attribute: str) -> frozenset[Kind]:
    """Return what a tensor's name, and the class of its module, say of its kinds."""
    found: set[Kind] = set()
    is_layer = issubclass(layer, WEIGHT_LAYERS)
    if attribute.endswith("bias") or (is_layer and attribute.startswith("bias")):
        found.add("bias")
    if is_norm_class(layer):
        return frozenset({*found, "norm"})
    if "PReLU" in layer.__name__:
        return frozenset({*found, "prelu"})
    if is_layer and _MATRIX.search(attribute):
        return frozenset(found)
    own = _kind_by_name(attribute)
    return frozenset({*found, own} if own else found)


def _kind_by_name(attribute: str) -> Kind | None:
    """Return what a tensor's name says of its kind."""
    if _TOKEN.search(attribute):
        return "token"
    if _POSITION.search(attribute):
        return "position"
    return "scale" if _SCALE.search(attribute) else None


def _kind_by_shape(module: nn.Module, attribute: str, parameter: Tensor) -> Kind | None:
    """Return what a tensor's shape says of its kind.

    One that varies along one axis only is a scale. One that is broadcast over a batch is a position, and so is all
    that a module holds which is called one.
    """
    if _POSITIONS.search(type(module).__name__):
        return "position"
    if parameter.numel() == max(parameter.shape, default=1):
        return "scale"
    broadcast = parameter.ndim >= 3 and len(parameter) == 1
    return "position" if broadcast and not _MATRIX.search(attribute) else None


def classifiers(model: nn.Module) -> list[LayerWeight]:
    """Return the weights of the layers that compute the logits, none if the model has no such layer.

    What timm's `get_classifier` says, else the last linear layer, else the last convolution. A distilled model of timm
    has two.
    """
    ask = next((found for m in model.modules() if callable(found := getattr(m, "get_classifier", None))), None)
    said: Any = ask() if ask else None
    heads = list(said) if isinstance(said, (tuple, list, nn.ModuleList)) else [model if said is None else said]
    found = [_last_layer(head) for head in heads if isinstance(head, nn.Module)]
    found = [last for last in found if last is not None] or [_last_layer(model)]
    names = {module: path for path, module in model.named_modules()}
    return [LayerWeight(module, names[module], "weight") for module in found if module is not None]


def _last_layer(model: nn.Module) -> nn.Module | None:
    """Return the last linear layer of a module, else its last convolution, else None."""
    for kind in (nn.Linear, CONVOLUTIONS):
        if layers := [module for module in model.modules() if isinstance(module, kind)]:
            return layers[-1]
    return None
