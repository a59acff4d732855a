"""Reads and writes the weight of a layer as the layer applies it, through torch's parametrizations and older hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from runner.engine.parts import is_kept, mode
from runner.errors import ConfigError, message_of

# The child of a module that holds its parametrizations
PARAMETRIZED = "parametrizations"
# Power iterations that bring the vectors of a spectral norm to a new weight, as many as torch makes at its creation
_POWER_ITERATIONS = 15


@dataclass(frozen=True)
class LayerWeight:
    """One weight of a layer, with the name of its module; `read` and `write` pass through a parametrization."""

    module: nn.Module
    path: str
    attribute: str

    @property
    def name(self) -> str:
        """Return the name of the weight in the model: that of the parameter, if it has no parametrization."""
        return f"{self.path}.{self.attribute}".lstrip(".")

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that hold the weight: one, or those of its parametrization."""
        if (plain := self.module._parameters.get(self.attribute)) is not None:
            return [plain]
        if parametrize.is_parametrized(self.module, self.attribute):
            return list(getattr(self.module, PARAMETRIZED)[self.attribute].parameters())
        own = self.module._parameters
        return [p for name in _held_by(self.module, self.attribute) if (p := own.get(name)) is not None]

    @property
    def is_kept(self) -> bool:
        """True if the values came from a file."""
        return any(map(is_kept, self.parameters))

    @property
    def is_trained(self) -> bool:
        """True if the weight is trained now."""
        return any(parameter.requires_grad for parameter in self.parameters)

    @property
    def is_plain(self) -> bool:
        """True if the weight is a parameter."""
        return self.attribute in self.module._parameters

    def read(self) -> Tensor:
        """Return the weight that the layer applies; gradients flow to its parameters."""
        if self.is_plain:
            return self.parameters[0]
        if (hook := _legacy_hook(self.module, self.attribute)) is not None:
            # Only spectral norm iterates; its vectors change in forward passes, never because a weight is read
            words = {"do_power_iteration": False} if hasattr(hook, "n_power_iterations") else {}
            computed: Tensor = hook.compute_weight(self.module, **words)
            return computed
        with mode(getattr(self.module, PARAMETRIZED)[self.attribute], training=False):
            read: Tensor = getattr(self.module, self.attribute)
            return read

    @torch.no_grad()
    def write(self, values: Tensor) -> bool:
        """Set the weight; return False if its parametrization lets the layer apply other values than these.

        Raises:
            ConfigError: The parametrization cannot hold the values.
        """
        if self.is_plain:
            self.module.get_parameter(self.attribute).copy_(values)
            return True
        try:
            if (hook := _legacy_hook(self.module, self.attribute)) is not None:
                _write_through_hook(self.module, self.attribute, hook, values)
            else:
                _write_through_parametrization(self.module, self.attribute, values)
            found = self.read()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise self._refusal(" ".join(message_of(error).split())) from error
        if not found.isfinite().all():
            raise self._refusal("it would not be finite")
        return torch.allclose(found, values, rtol=1e-4, atol=1e-6 + 1e-5 * float(values.abs().max()))

    @property
    def how(self) -> str:
        """Return the names of the parametrizations, as in `WeightNorm`."""
        if (hook := _legacy_hook(self.module, self.attribute)) is not None:
            return type(hook).__name__
        chain = getattr(self.module, PARAMETRIZED)[self.attribute] if not self.is_plain else ()
        return ", ".join(type(each).__name__.lstrip("_") for each in chain)

    def _refusal(self, reason: str) -> ConfigError:
        """Return the error for values that cannot be written."""
        return ConfigError(
            f"init: cannot set {self.name} through its parametrization {self.how} ({reason}); "
            "choose init=torch_default init.head=null, which leaves weights as constructed"
        )


def _write_through_parametrization(module: nn.Module, attribute: str, values: Tensor) -> None:
    """Set a parametrized weight by its right inverse."""
    chain = getattr(module, PARAMETRIZED)[attribute]
    norms = [each for each in chain if isinstance(each, parametrizations._WeightNorm)]
    zero = torch.zeros(())
    if norms:
        values, zero = _with_directions(values, chain.original1, norms[0].dim)
    setattr(module, attribute, values.clone())
    if norms:
        chain.original0.masked_fill_(zero, 0.0)
    if any(True for _ in chain.buffers()):
        with mode(chain, training=True):
            for _ in range(_POWER_ITERATIONS):
                getattr(module, attribute)


def _write_through_hook(module: nn.Module, attribute: str, hook: Any, values: Tensor) -> None:
    """Set a weight that one of torch's older hooks, weight norm or spectral norm, computes before a forward pass."""
    words = {}
    if hasattr(hook, "n_power_iterations"):
        module.get_parameter(f"{attribute}_orig").copy_(values)
        words = {"do_power_iteration": True}
    else:
        values, zero = _with_directions(values, module.get_parameter(f"{attribute}_v"), hook.dim)
        module.get_parameter(f"{attribute}_g").copy_(torch.norm_except_dim(values, 2, hook.dim).masked_fill(zero, 0.0))
        module.get_parameter(f"{attribute}_v").copy_(values)
    for _ in range(_POWER_ITERATIONS if words else 1):
        # A tensor without a graph can be copied with the model
        setattr(module, attribute, hook.compute_weight(module, **words).detach())


def _with_directions(values: Tensor, directions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return values in which no slice is zero, and which slices were: weight norm divides by their norms.

    A slice of zeros keeps the direction it had. Its magnitude is set to zero afterwards and can be trained from there.
    """
    zero = torch.norm_except_dim(values, 2, dim) == 0
    return torch.where(zero, directions, values), zero


def tensor_names(module: nn.Module) -> list[str]:
    """Return the names of a module's own tensors, with a parametrized one under its own name."""
    parametrized = getattr(module, PARAMETRIZED, ())
    hooked = [hook.name for hook in _legacy_hooks(module)]
    parts = {part for name in hooked for part in _held_by(module, name)}
    own = [name for name, parameter in module._parameters.items() if parameter is not None and name not in parts]
    return [*own, *parametrized, *hooked]


def _legacy_hooks(module: nn.Module) -> list[Any]:
    """Return torch's older hooks, which compute a weight from parameters before a forward pass."""
    return [hook for hook in module._forward_pre_hooks.values() if hasattr(hook, "compute_weight")]


def _legacy_hook(module: nn.Module, attribute: str) -> Any:
    """Return the older hook that computes a tensor, None if there is none."""
    return next((hook for hook in _legacy_hooks(module) if hook.name == attribute), None)


def _held_by(module: nn.Module, attribute: str) -> list[str]:
    """Return the names of the parameters that hold a tensor which is not parametrized."""
    return [f"{attribute}{end}" for end in ("_orig", "_g", "_v")] if _legacy_hook(module, attribute) else [attribute]


def tensor_of(module: nn.Module, parameter: str) -> str:
    """Return the name of the tensor that a module's parameter holds, or helps to hold."""
    return next((hook.name for hook in _legacy_hooks(module) if parameter in _held_by(module, hook.name)), parameter)


@torch.no_grad()
def detach_computed(model: nn.Module) -> None:
    """Compute the weights of torch's older hooks without a graph, since a tensor with one cannot be copied."""
    for module in model.modules():
        for hook in _legacy_hooks(module):
            words = {"do_power_iteration": False} if hasattr(hook, "n_power_iterations") else {}
            setattr(module, hook.name, hook.compute_weight(module, **words).detach())
