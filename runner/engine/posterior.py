"""A Gaussian distribution over the weights of a model (SWAG, Maddox et al. 2019, arXiv 1902.02476).

The mean is the averaged model. The covariance is `(diag(variance) + D D^T / (k - 1)) / 2`, where D has the last k
differences of collected weights from their mean so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from runner.engine.state_dict import StateDict, state_of

# The prefix of its tensors in a weights file, and the attribute of the module that has it
_PREFIX, _ATTRIBUTE = "swag.", "_runner_posterior"
_COUNT, _VARIANCE, _DIFFERENCES = f"{_PREFIX}count", f"{_PREFIX}variance.", f"{_PREFIX}differences."


class Posterior:
    """The variances and the last differences of the parameters of a model, and how many weights were collected.

    Args:
        model: The model whose parameters are the mean.
        rank: The number of differences that are kept.
    """

    def __init__(self, model: nn.Module, rank: int) -> None:
        self.rank = rank
        self.mean = {name: p.detach() for name, p in model.named_parameters()}
        self._variance = {name: torch.zeros_like(p) for name, p in self.mean.items()}
        self._differences = {name: p.new_zeros(rank, *p.shape) for name, p in self.mean.items()}
        # On the CPU, where it is read without waiting for a device
        self._count = torch.zeros((), dtype=torch.int64)

    @property
    def count(self) -> int:
        """Return the number of weights that were collected."""
        return int(self._count)

    @torch.no_grad()
    def collect(self, before: Iterable[Tensor], newest: Iterable[Tensor], count: int) -> None:
        """Take in weights whose mean has just been updated, as the `count`-th, without a host sync.

        Args:
            before: The mean without them, for each parameter.
            newest: The weights.
            count: 1 begins anew.
        """
        if count == 1:
            self.clear()
        for name, old, new in zip(self.mean, before, newest, strict=True):
            difference = new - self.mean[name]
            # Welford: the difference of two large means of squares would lose small variances
            self._variance[name].lerp_((new - old) * difference, 1 / count)
            self._differences[name][(count - 1) % self.rank].copy_(difference)
        self._count.fill_(count)

    def clear(self) -> None:
        """Forget the collected weights."""
        for tensor in (*self._variance.values(), *self._differences.values(), self._count):
            tensor.zero_()

    def sample(self, seed: int) -> dict[str, Tensor]:
        """Return parameters drawn from the distribution; the same seed gives the same ones on one kind of device."""
        device = next(iter(self.mean.values())).device
        generator = torch.Generator(device).manual_seed(seed)
        columns = min(self.count, self.rank)
        # The same for all parameters: it mixes whole differences
        mixed = torch.randn(columns, generator=generator, device=device) / math.sqrt(2 * max(1, columns - 1))
        found = {}
        for name, mean in self.mean.items():
            noise = torch.randn(mean.shape, generator=generator, device=device, dtype=mean.dtype)
            deviation = noise * (self._variance[name].clamp(min=0) / 2).sqrt()
            differences = self._differences[name][:columns]
            found[name] = mean + deviation + torch.tensordot(mixed.to(mean.dtype), differences, dims=1)
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors, by the names that a weights file has."""
        return {
            **{f"{_VARIANCE}{name}": tensor for name, tensor in self._variance.items()},
            **{f"{_DIFFERENCES}{name}": tensor for name, tensor in self._differences.items()},
            _COUNT: self._count,
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore tensors that `state_dict` returned; KeyError or RuntimeError if they are of another model."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def attach(model: nn.Module, posterior: Posterior) -> None:
    """Give a model a distribution over its weights, which `posterior_of` returns."""
    object.__setattr__(model, _ATTRIBUTE, posterior)


def posterior_of(model: nn.Module) -> Posterior | None:
    """Return the distribution over the weights of a model, None if it has none."""
    found: Posterior | None = getattr(model, _ATTRIBUTE, None)
    return found


def attach_as_in(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model an empty distribution of the size of the one in a weights file, if that has one."""
    shapes = [tensor.shape for name, tensor in weights.items() if name.startswith(_DIFFERENCES)]
    if shapes and len(shapes[0]) > 0:
        attach(model, Posterior(model, shapes[0][0]))


def evaluation_state(model: nn.Module, preprocess: nn.Module) -> StateDict:
    """Return the tensors that evaluation needs: those of the model, its distribution if it has one, `preprocess`."""
    found = state_of(model=model, preprocess=preprocess)
    posterior = posterior_of(model)
    found.update(posterior.state_dict() if posterior else {})
    return found


def load_posterior(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the distribution over the weights of a model that has one."""
    if posterior := posterior_of(model):
        posterior.load_state_dict(weights)
