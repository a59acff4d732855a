"""Parts of models: slots for regularizers, marks for initializers, notes for the summary, norms, train/eval flags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

_KEPT = "kept_from_file"
_LAST = "last_of_a_residual_branch"
_STANDARDIZED = "standardizes_weight"
_NOTES = "notes_for_the_summary"
_POOL_CALLS = "max_pooling_called_as_a_function"

# Torch's layers by kind; the base class that the layers of a kind share is private
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (*BATCH_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# Torch's layers that multiply their inputs by weights
WEIGHT_LAYERS = (
    nn.Linear,
    *CONVOLUTIONS,
    nn.Bilinear,
    nn.MultiheadAttention,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Embedding,
    nn.EmbeddingBag,
)


def is_norm(module: nn.Module) -> bool:
    """Return True for a normalization layer: one of torch's, or a class that has `Norm` in its name.

    A linear layer with normalized weights is none, whatever its name.
    """
    return is_norm_class(type(module))


def is_norm_class(kind: type) -> bool:
    """Return True if the modules of a class are normalization layers, see `is_norm`."""
    return issubclass(kind, NORMS) or ("Norm" in kind.__name__ and not issubclass(kind, WEIGHT_LAYERS))


def has_running_statistics(module: nn.Module) -> bool:
    """Return True for a norm that updates buffers in training mode and reads them in evaluation mode (BatchNorm)."""
    return is_norm(module) and any(True for _ in module.buffers(recurse=False))


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[nn.Module]:
    """Put all modules into training or evaluation mode for a while; afterwards each gets its own flag back.

    A frozen BatchNorm in a model that trains stays in evaluation mode this way. `model.train()` would reset it.
    """
    flags = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield model
    finally:
        for module, flag in flags:
            module.training = flag


class Slot(nn.Identity):
    """An insertion point in a model: the identity until a regularizer fills it.

    Args:
        where: `head` (before the classifier), `fc` (after the activation of a hidden fully connected layer), `block`
            (after a convolutional block) or `residual` (end of a residual branch, before the addition).
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where


class Residual(nn.Module):
    """`after(shortcut(x) + branch(x))`, the residual block of He et al. 2015 (arXiv 1512.03385, eq. 2).

    `init=residual` sets the last weighted layer of `branch` to zero.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape of the branch's and the shortcut's output."""
        out: Tensor = self.after(self.shortcut(x) + self.branch(x))
        return out


def slots(model: nn.Module, where: str) -> list[tuple[str, Slot]]:
    """Return the unfilled slots of a kind with their module names, in order of definition."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, Slot) and m.where == where]


def fill(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def close_slots(model: nn.Module) -> None:
    """Remove unfilled slots and identity norms, whose calls would cost a small model time.

    Only named children of an `nn.Sequential` are removed, so that no parameter changes its name.
    """
    for module in model.modules():
        if type(module) is nn.Sequential:
            for name, part in list(module.named_children()):
                if type(part) in (Slot, nn.Identity) and not name.isdigit():
                    delattr(module, name)


def keep(parameters: Iterable[nn.Parameter]) -> None:
    """Mark parameters whose values came from a file: initializers leave them unchanged."""
    for parameter in parameters:
        setattr(parameter, _KEPT, True)


def is_kept(parameter: Tensor) -> bool:
    """Return whether `keep` marked a parameter."""
    return getattr(parameter, _KEPT, False)


def end_branch(layer: nn.Module) -> None:
    """Mark the last weighted layer of a residual branch in a model that does not use `Residual`."""
    setattr(layer, _LAST, True)


def ends_branch(layer: nn.Module) -> bool:
    """Return whether `end_branch` marked a layer."""
    return getattr(layer, _LAST, False)


def standardizes_weight(layer: nn.Module) -> bool:
    """Return True for a layer that shifts and scales its weight to mean 0 and variance 1 before it uses it."""
    return getattr(layer, _STANDARDIZED, False)


def set_notes(model: nn.Module, lines: list[str]) -> None:
    """Store lines about how a model was made, for the run's summary."""
    setattr(model, _NOTES, lines)


def add_note(model: nn.Module, line: str) -> None:
    """Append a line to those that `set_notes` stored."""
    set_notes(model, [*getattr(model, _NOTES, []), line])


def notes(model: nn.Module) -> list[str]:
    """Return the notes of a model and of its submodules."""
    return [line for module in model.modules() for line in getattr(module, _NOTES, [])]


def pool_calls(model: nn.Module) -> int:
    """Return how often a model calls max pooling as a function, which no module can replace."""
    return sum(getattr(module, _POOL_CALLS, 0) for module in model.modules())


def set_pool_calls(model: nn.Module, count: int) -> None:
    """Store the number that `pool_calls` returns."""
    setattr(model, _POOL_CALLS, count)
