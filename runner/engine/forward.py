"""How training calls the model: directly, compiled by torch.compile, or as captured CUDA graphs.

The model itself is neither wrapped nor changed, so checkpoints, averages and evaluation do not depend on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from runner.errors import ConfigError, message_of, one_line, type_name

Forward = Callable[[nn.Module, Tensor], Tensor]  # (the run's model, images of a micro-batch) -> logits
_FastCall = Callable[[Tensor], Tensor]  # images -> logits
_Make = Callable[[nn.Module, Tensor], _FastCall]  # (the run's model, its first images) -> a faster call of the model

# The default of torch.compile. Tests use a backend that compiles faster.
BACKEND = "inductor"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

plain_forward: Forward = nn.Module.__call__


class FastForward:
    """A faster forward pass of one model, compiled or captured at its first micro-batch of `examples` images.

    Three kinds of steps use the plain forward: a smaller micro-batch, because its shape would have to be compiled or
    captured for one step per epoch, a step with hooks on a module (probes), which the faster forward does not call, and
    images of another size than `size`, where they grow during the run.

    Args:
        model: The model in training.
        make: Compiles or captures the model.
        examples: The number of images of a full micro-batch.
        on_failure: Called with the error if the first faster call fails. If it returns, all steps use the plain
            forward.
        size: Height and width of the images, None for any.
    """

    def __init__(
        self,
        model: nn.Module,
        make: _Make,
        *,
        examples: int,
        on_failure: Callable[[RuntimeError], None],
        size: tuple[int, int] | None = None,
    ) -> None:
        self.make, self.examples, self.on_failure, self.size = make, examples, on_failure, size
        self.hooks = [getattr(module, name) for module in model.modules() for name in _HOOKS]
        self.own_hooks = self._hook_count()
        self.fast_call: _FastCall | None = None

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (B, K) of a micro-batch."""
        if len(images) != self.examples or self._hook_count() != self.own_hooks:
            return plain_forward(model, images)
        if self.size is not None and images.shape[2:] != self.size:
            return plain_forward(model, images)
        return self._first_call(model, images) if self.fast_call is None else self.fast_call(images)

    def reset(self) -> None:
        """Compile or capture again at the next call, after parameters were frozen or unfrozen.

        A CUDA graph computes gradients for the parameters that were trainable at its capture.
        """
        self.fast_call = None

    def _hook_count(self) -> int:
        """Return the current number of hooks on the modules."""
        return sum(map(len, self.hooks))

    def _first_call(self, model: nn.Module, images: Tensor) -> Tensor:
        """Compile or capture the model, and call it."""
        try:
            self.fast_call = self.make(model, images)
            return self.fast_call(images)
        except torch.OutOfMemoryError:
            # Not a failure of compilation: the plain forward would run out of memory, too.
            raise
        except RuntimeError as error:
            self.on_failure(error)
            # No micro-batch has zero images, so all further calls are plain.
            self.examples = 0
            return plain_forward(model, images)


def compiled(model: nn.Module, images: Tensor) -> _FastCall:
    """Return the model compiled for one input shape."""
    fast_call: _FastCall = torch.compile(model, dynamic=False, backend=BACKEND)
    return fast_call


def compiled_with_graphs(model: nn.Module, images: Tensor) -> _FastCall:
    """Return the compiled model with its kernels replayed as CUDA graphs (`mode="reduce-overhead"`)."""
    fast_call = torch.compile(model, dynamic=False, mode="reduce-overhead")

    def call(images: Tensor) -> Tensor:
        # From here on the graphs may overwrite the outputs of the previous step.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        logits: Tensor = fast_call(images)
        return logits

    return call


class _Wrapper(nn.Module):
    """A wrapper whose `forward` torch replaces, so that the model keeps its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.model(images)
        return logits


def captured(model: nn.Module, images: Tensor) -> _FastCall:
    """Return the model with forward and backward replayed as CUDA graphs (`torch.cuda.make_graphed_callables`).

    torch runs the model a few times before the capture. Buffers (running statistics) and random generators are restored
    afterwards. Autocast must run with `cache_enabled=False`.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([images.device]):
        fast_call = torch.cuda.make_graphed_callables(_Wrapper(model), (images.clone(),), allow_unused_input=True)
    with torch.no_grad():
        for buffer, old in zip(model.buffers(), before, strict=True):
            buffer.copy_(old)
    return cast(_FastCall, fast_call)


def raise_config_error(key: str, what: str) -> Callable[[RuntimeError], None]:
    """Return an `on_failure` that raises a ConfigError about a config key."""

    def on_failure(error: RuntimeError) -> None:
        raise ConfigError(f"{key}: {what} ({_brief(error)}); {key}=false trains without it") from error

    return on_failure


def warn_and_use_plain_forward(what: str) -> Callable[[RuntimeError], None]:
    """Return an `on_failure` that warns; the run then uses the plain forward."""

    def on_failure(error: RuntimeError) -> None:
        warnings.warn(f"{what} ({_brief(error)}): the run trains without it", stacklevel=2)

    return on_failure


def _brief(error: RuntimeError) -> str:
    """Return the type and the first two lines of an error; torch.compile gives the cause in the second line."""
    lines = [line.strip() for line in message_of(error).splitlines() if line.strip()]
    return one_line(": ".join([type_name(error), " ".join(lines[:2])]))
