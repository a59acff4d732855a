"""What the parts of other libraries' models are: activations, norms, gates, things that drop."""

from __future__ import annotations

from torch import nn

from runner.engine.parts import NORMS, is_norm

ACTIVATION_MODULES = ("torch.nn.modules.activation", "timm.layers.activations")
NO_ACTIVATIONS = ("MultiheadAttention", "Softmax", "LogSoftmax", "Softmin", "Softmax2d")
DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)
SKIPS = ("StochasticDepth", "DropPath")  # torchvision's and timm's
SKIP_NAMES = ("stochastic_depth", "drop_path")  # where both put an Identity when nothing is to be skipped

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
    """Tell whether a module is an activation of torch or timm (softmax, which makes shares, is none)."""
    kind = type(module)
    return kind.__module__.startswith(ACTIVATION_MODULES) and kind.__name__ not in NO_ACTIVATIONS


def is_known_norm(module: nn.Module) -> bool:
    """Return True for a norm that can be replaced: one of torch's."""
    return isinstance(module, NORMS)


def is_strange_norm(module: nn.Module) -> bool:
    """Return True for a norm with tensors of its own that is none of torch's."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return is_norm(module) and bool(tensors) and not is_known_norm(module)


def can_gate(word: str) -> bool:
    """Tell whether an activation or function of this name gives factors in [0, 1]."""
    return word.lower().startswith(("sigmoid", "hardsigmoid"))


def is_drop(module: nn.Module) -> bool:
    """Tell whether a module is dropout, or skips whole branches."""
    return isinstance(module, DROPOUTS) or type(module).__name__ in SKIPS


def skips(model: nn.Module) -> set[nn.Module]:
    """Return the modules of a model that skip whole branches, or could."""
    return {
        module
        for name, module in model.named_modules()
        if type(module).__name__ in SKIPS
        or (isinstance(module, nn.Identity) and name.split(".")[-1].startswith(SKIP_NAMES))
    }
