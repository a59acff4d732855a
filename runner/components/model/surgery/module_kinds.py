"""Kinds of modules in other libraries' models: activations, norms, gates and dropout."""

from __future__ import annotations

from torch import nn

from runner.engine.parts import NORMS, is_norm

_ACTIVATION_MODULES = ("torch.nn.modules.activation", "timm.layers.activations")
_NO_ACTIVATIONS = ("MultiheadAttention", "Softmax", "LogSoftmax", "Softmin", "Softmax2d")
DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
# Class names of torchvision and timm, which may not be installed
_SKIPS = ("StochasticDepth", "DropPath")
# Both use an Identity of this name when nothing is skipped
_SKIP_NAMES = ("stochastic_depth", "drop_path")

ACTIVATION_FUNCTIONS = frozenset(
    [
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "softsign",
        "tanh",
        "sigmoid",
        "hardtanh",
        "hardswish",
        "hardsigmoid",
        "logsigmoid",
        "threshold",
        "glu",
    ]
)
NORM_FUNCTIONS = frozenset(
    ["batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"]
)
DROPOUT_FUNCTIONS = frozenset(["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"])
POOL_FUNCTIONS = frozenset(["max_pool2d"])


def is_activation(module: nn.Module) -> bool:
    """Return True if a module is an activation of torch or timm (softmax, which makes probabilities, is none)."""
    kind = type(module)
    return kind.__module__.startswith(_ACTIVATION_MODULES) and kind.__name__ not in _NO_ACTIVATIONS


def is_known_norm(module: nn.Module) -> bool:
    """Return True if a module is a norm that can be replaced."""
    return isinstance(module, NORMS)


def is_unknown_norm(module: nn.Module) -> bool:
    """Return True if a module is named a norm, has tensors and is none that can be replaced."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return is_norm(module) and bool(tensors) and not is_known_norm(module)


def can_gate(word: str) -> bool:
    """Return True if an activation or function of this name returns factors in [0, 1]."""
    return word.lower().startswith(("sigmoid", "hardsigmoid"))


def is_dropout(module: nn.Module) -> bool:
    """Return True if a module is dropout or skips whole branches."""
    return isinstance(module, DROPOUTS) or type(module).__name__ in _SKIPS


def skip_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that skip whole branches, or could."""
    return {
        module
        for name, module in model.named_modules()
        if type(module).__name__ in _SKIPS
        or (isinstance(module, nn.Identity) and name.split(".")[-1].startswith(_SKIP_NAMES))
    }
