"""How training calls the model: plainly, compiled, or as captured CUDA graphs.

The model itself is neither wrapped nor changed: checkpoints, averages and evaluation are the same in all forms.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from runner.errors import ConfigError

Forward = Callable[[nn.Module, Tensor], Tensor]  # (the run's model, images of a micro-batch) -> logits
_Form = Callable[[Tensor], Tensor]
_Make = Callable[[nn.Module, Tensor], _Form]  # (the run's model, its first images) -> its faster form

BACKEND = "inductor"  # torch.compile's default; tests use a quicker one
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

plain_forward: Forward = nn.Module.__call__


class FastForward:
    """The forward of one model in a faster form, which `make` creates at the first micro-batch of `examples` images.

    A shorter micro-batch uses the plain forward: another shape would be compiled or captured for one step of an epoch.
    So does a step in which a module has a hook, which neither form would call. If the first call fails, `failed` may
    raise an error; if it returns, every step uses the plain forward.
    """

    def __init__(self, model: nn.Module, make: _Make, *, examples: int, failed: Callable[[RuntimeError], None]) -> None:
        self.make, self.examples, self.failed = make, examples, failed
        self.hooks = [getattr(module, name) for module in model.modules() for name in _HOOKS]
        self.own_hooks = self._hook_count()
        self.form: _Form | None = None

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (B, K) of a micro-batch."""
        if len(images) != self.examples or self._hook_count() != self.own_hooks:
            return plain_forward(model, images)
        return self._first(model, images) if self.form is None else self.form(images)

    def renew(self) -> None:
        """Make the form again at the next call: a CUDA graph gives gradients to what was trained at its capture."""
        self.form = None

    def _hook_count(self) -> int:
        """Return how many hooks the modules have now."""
        return sum(map(len, self.hooks))

    def _first(self, model: nn.Module, images: Tensor) -> Tensor:
        """Create the faster form and call it for the first time."""
        try:
            self.form = self.make(model, images)
            return self.form(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed(error)
            self.examples = 0
            return plain_forward(model, images)


def compiled(model: nn.Module, images: Tensor) -> _Form:
    """Return a model compiled for one shape."""
    form: _Form = torch.compile(model, dynamic=False, backend=BACKEND)
    return form


def compiled_with_graphs(model: nn.Module, images: Tensor) -> _Form:
    """Return a model compiled, its kernels replayed as CUDA graphs."""
    form = torch.compile(model, dynamic=False, mode="reduce-overhead")

    def call(images: Tensor) -> Tensor:
        # Allows this step to overwrite the memory that the graphs used in the last one.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits: Tensor = form(images)
        return logits

    return call


class _Wrapper(nn.Module):
    """A module around a model whose `forward` torch may replace."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits."""
        logits: Tensor = self.model(images)
        return logits


def captured(model: nn.Module, images: Tensor) -> _Form:
    """Return a model whose forward and backward replay CUDA graphs (`torch.cuda.make_graphed_callables`).

    Torch runs the model a few times first; norm statistics and random generators are restored afterwards. Autocast must
    not cache its casts.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([images.device]):
        form = torch.cuda.make_graphed_callables(_Wrapper(model), (images.clone(),), allow_unused_input=True)
    with torch.no_grad():
        for buffer, was in zip(model.buffers(), before, strict=True):
            buffer.copy_(was)
    return cast(_Form, form)


def raise_config_error(key: str, what: str) -> Callable[[RuntimeError], None]:
    """Return a function that turns a failure into a one-line error about a config key."""

    def failed(error: RuntimeError) -> None:
        raise ConfigError(f"{key}: {what} ({_brief(error)}); {key}=false trains it as it is") from error

    return failed


def warn_and_train_plainly(what: str) -> Callable[[RuntimeError], None]:
    """Return a function that warns that the plain forward is used."""

    def failed(error: RuntimeError) -> None:
        warnings.warn(f"{what} ({_brief(error)}): it is trained as it is", stacklevel=2)

    return failed


def _brief(error: RuntimeError) -> str:
    """Return the type and the first two lines of an error: torch's compiler gives the cause on the second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, " ".join(lines[:2])])
