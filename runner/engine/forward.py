"""The model's training forward in a faster form, compiled or captured as CUDA graphs, taken where it does the same.

The model itself is neither wrapped nor changed: names in checkpoints, copies for averages and evaluation know nothing
of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from runner.errors import ConfigError

Forward = Callable[[nn.Module, Tensor], Tensor]  # (the run's model, images of a micro-batch) -> logits
Form = Callable[[Tensor], Tensor]
Make = Callable[[nn.Module, Tensor], Form]  # (the run's model, its first images) -> its faster form

BACKEND = "inductor"  # what compiles; tests take a quicker one
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

plainly: Forward = nn.Module.__call__


class Fast:
    """The forward of one model in the form that `make` gives it at the first micro-batch of `examples`.

    A shorter micro-batch goes the plain way, since one more shape would be compiled or captured for one step of an
    epoch; and so does a step in which somebody hears a module by a hook, which neither form would call. If the first
    try fails, `failed` may raise its own error; if it does not, all goes the plain way.
    """

    def __init__(self, model: nn.Module, make: Make, *, examples: int, failed: Callable[[RuntimeError], None]) -> None:
        self.make, self.examples, self.failed = make, examples, failed
        self.hooks = [getattr(module, name) for module in model.modules() for name in HOOKS]
        self.own = self.hooked()
        self.form: Form | None = None

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (B, K) of a micro-batch."""
        if len(images) != self.examples or self.hooked() != self.own:
            return plainly(model, images)
        return self.begin(model, images) if self.form is None else self.form(images)

    def hooked(self) -> int:
        """Return how many hooks the modules have now."""
        return sum(map(len, self.hooks))

    def begin(self, model: nn.Module, images: Tensor) -> Tensor:
        """Make the faster form and take it for the first time."""
        try:
            self.form = self.make(model, images)
            return self.form(images)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.failed(error)
            self.examples = 0
            return plainly(model, images)


def compiled(model: nn.Module, images: Tensor) -> Form:
    """Return a model compiled for the one shape that it will see."""
    form: Form = torch.compile(model, dynamic=False, backend=BACKEND)
    return form


def compiled_with_graphs(model: nn.Module, images: Tensor) -> Form:
    """Return a model compiled, its kernels replayed as CUDA graphs."""
    form = torch.compile(model, dynamic=False, mode="reduce-overhead")

    def call(images: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]  # what the last step left in the graphs' memory may be written over
        logits: Tensor = form(images)
        return logits

    return call


class Bare(nn.Module):
    """A module round a model, for torch to change the `forward` of."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return what the model gives."""
        logits: Tensor = self.model(images)
        return logits


def captured(model: nn.Module, images: Tensor) -> Form:
    """Return a model whose forward and backward replay CUDA graphs (`torch.cuda.make_graphed_callables`).

    Torch tries the model a few times first; statistics of norms and random generators are put back afterwards. Autocast
    must not cache.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.random.fork_rng([images.device]):
        form = torch.cuda.make_graphed_callables(Bare(model), (images.clone(),), allow_unused_input=True)
    with torch.no_grad():
        for buffer, was in zip(model.buffers(), before, strict=True):
            buffer.copy_(was)
    return cast(Form, form)


def refused(key: str, what: str) -> Callable[[RuntimeError], None]:
    """Return what turns a failure into one line about a key of the config."""

    def failed(error: RuntimeError) -> None:
        raise ConfigError(f"{key}: {what} ({brief(error)}); {key}=false trains it as it is") from error

    return failed


def passed_over(what: str) -> Callable[[RuntimeError], None]:
    """Return what says in a warning that the plain forward is taken."""

    def failed(error: RuntimeError) -> None:
        warnings.warn(f"{what} ({brief(error)}): it is trained as it is", stacklevel=2)

    return failed


def brief(error: RuntimeError) -> str:
    """Return the kind and the first two lines of an error: torch's compiler gives the cause on its second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, " ".join(lines[:2])])
