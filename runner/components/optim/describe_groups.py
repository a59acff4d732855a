"""The parameter groups of an optimizer in words, for the summary of a run."""

from __future__ import annotations

from torch.optim import Optimizer

from runner.printing import counted


def describe(optimizer: Optimizer) -> list[str]:
    """Return one printable line per group: its tensors, parameters, learning rate and weight decay.

    The groups of a user's optimizer, which need not be made by `Groups`, may have no name and no weight decay.
    """
    return [
        f"{group.get('name', 'parameters')}: {counted(len(group['params']), 'tensor')}"
        f"{_in_brackets(group.get('kinds'))}, "
        f"{sum(p.numel() for p in group['params']):,} parameters, "
        f"lr {group['lr']:g}, weight decay {group.get('weight_decay', 0):g}{_window(group.get('active'))}"
        for group in optimizer.param_groups
    ]


def _in_brackets(kinds: str | None) -> str:
    """Return what a group holds besides weights as text; empty if it holds nothing else."""
    return f" ({kinds})" if kinds else ""


def _window(active: list[int] | None) -> str:
    """Return in which steps, counted from 1, a group is trained, as text; empty if it always is."""
    if active is None:
        return ""
    first, end = active
    return f", trained in steps {first + 1} to {end}" if first < end else ", frozen in all steps"
