"""Places that our models mark for others: slots that regularizers fill, residual blocks that initialisers know."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

KEPT = "kept_from_file"
LAST = "last_of_a_residual_branch"
TOLD = "told_about_the_model"
POOLED = "max_pooling_called_as_a_function"


class Slot(nn.Identity):
    """A named place in a model that does nothing until a regularizer fills it.

    `where` is one of: head (before the classifier), fc (after a hidden fully connected activation), block (after a
    convolutional block), residual (end of a residual branch, before the addition).
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where


class Residual(nn.Module):
    """`after(shortcut(x) + branch(x))`, the residual block of He et al. 2015 (arXiv 1512.03385, eq. 2).

    The last weighted layer of `branch` is what `init=residual` sets to zero.
    """

    def __init__(self, branch: nn.Sequential, shortcut: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.after = branch, shortcut, after

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the shape that branch and shortcut share."""
        out: Tensor = self.after(self.shortcut(x) + self.branch(x))
        return out


def slots(model: nn.Module, where: str) -> list[tuple[str, Slot]]:
    """Return the open slots of a kind with their module names, in order of definition."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, Slot) and m.where == where]


def fill(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the one called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def close_slots(model: nn.Module) -> None:
    """Take out the places that stayed empty and the norms that are none: calling them would cost a small model time.

    Only where they stand by name in a sequence, so that no other part changes its name.
    """
    for module in model.modules():
        if type(module) is nn.Sequential:
            for name, part in list(module.named_children()):
                if type(part) in (Slot, nn.Identity) and not name.isdigit():
                    delattr(module, name)


def keep(parameters: Iterable[nn.Parameter]) -> None:
    """Mark parameters whose values came from a file: initializations leave them alone."""
    for parameter in parameters:
        setattr(parameter, KEPT, True)


def is_kept(parameter: Tensor) -> bool:
    """Tell whether `keep` marked this parameter."""
    return getattr(parameter, KEPT, False)


def end_branch(layer: nn.Module) -> None:
    """Mark the last weighted layer of a residual branch, where the branch is no `Residual` of ours."""
    setattr(layer, LAST, True)


def ends_branch(layer: nn.Module) -> bool:
    """Tell whether `end_branch` marked this layer."""
    return getattr(layer, LAST, False)


def tell(model: nn.Module, lines: list[str]) -> None:
    """Leave words about how a model was made, for the run's summary."""
    setattr(model, TOLD, lines)


def told(model: nn.Module) -> list[str]:
    """Return the words left in a model or in a part of it."""
    return [line for module in model.modules() for line in getattr(module, TOLD, [])]


def pooled_by_function(model: nn.Module) -> int:
    """Return at how many places a model calls max pooling as a function, where no module can take its place."""
    return sum(getattr(module, POOLED, 0) for module in model.modules())


def tell_pooled(model: nn.Module, places: int) -> None:
    """Leave the number that `pooled_by_function` returns in a model."""
    setattr(model, POOLED, places)
