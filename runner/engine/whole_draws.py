"""Random numbers of layers for a whole micro-batch, of which each process takes the rows of its examples.

So dropout and its relatives draw the same masks whatever the number of processes. Each process draws the numbers of
all, which takes as many times the time of drawing.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from runner.errors import ConfigError

_Function = Callable[..., Any]
# Random functions of batches, by the number of their first arguments that are batches
_OF_BATCHES: dict[Any, int] = {
    **dict.fromkeys([F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout, torch.feature_dropout], 1),
    **dict.fromkeys([F.alpha_dropout, F.feature_alpha_dropout, torch.alpha_dropout, torch.feature_alpha_dropout], 1),
    **dict.fromkeys([F.gumbel_softmax, torch.bernoulli, Tensor.bernoulli], 1),
    **dict.fromkeys([torch.rand_like, torch.randn_like], 1),
    F.scaled_dot_product_attention: 3,
}
# In place: a tensor is filled with random numbers, whatever it holds
_FILLING = {
    getattr(Tensor, f"{name}_")
    for name in ("bernoulli", "uniform", "normal", "exponential", "geometric", "cauchy", "log_normal", "random")
}
_FACTORIES = {torch.rand, torch.randn}
_ATTENTION = inspect.signature(F.multi_head_attention_forward)
_local = threading.local()


def whole_draws(rows: range, whole: int) -> AbstractContextManager[object]:
    """Return a context manager in which random numbers are drawn for a whole micro-batch.

    Args:
        rows: The examples of this process in the micro-batch.
        whole: The examples of all processes in it.
    """
    return _WholeDraws(rows, whole)


@contextmanager
def of_weights() -> Iterator[None]:
    """Let random numbers in the body be those of weights, which all processes draw alike."""
    before = getattr(_local, "of_weights", False)
    _local.of_weights = True
    try:
        yield
    finally:
        _local.of_weights = before


def drawn_for_all(examples: int, make: Callable[[int], Tensor]) -> Tensor:
    """Return what `make(examples)` draws, (examples, ...); in `whole_draws` the own rows of that of all examples."""
    mode: _WholeDraws | None = getattr(_local, "mode", None)
    if mode is None or not examples:
        return make(examples)
    with of_weights():
        return make(mode.whole)[mode.rows.start : mode.rows.stop]


class _WholeDraws(TorchFunctionMode):
    """Draws for the whole micro-batch where a tensor has a row, or a fixed number of rows, for each example."""

    def __init__(self, rows: range, whole: int) -> None:
        super().__init__()
        self.rows, self.whole = rows, whole

    def __enter__(self) -> _WholeDraws:
        """Begin to draw for all."""
        _local.mode = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Draw for this process alone again."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _local.mode = None

    def __torch_function__(
        self, function: _Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function; one that draws random numbers draws them for the whole micro-batch."""
        given = kwargs or {}
        # A generator of its own is seeded by whoever uses it; a process without examples needs no numbers
        if not self.rows or given.get("generator") is not None or getattr(_local, "of_weights", False):
            return function(*args, **given)
        if function is F.scaled_dot_product_attention and not _drops(*args, **given):
            return function(*args, **given)
        if (count := _OF_BATCHES.get(function)) is not None:
            return self._of_batches(function, count, args, given)
        if function in _FILLING:
            return self._fill(function, args[0], args[1:], given)
        if function in _FACTORIES:
            return self._make(function, args, given)
        if function is F.multi_head_attention_forward:
            _refuse_dropout(*args, **given)
        if function in (F.rrelu, torch.rrelu):
            # Torch draws for the negative values only, whose number other processes do not know
            raise ConfigError("strategy.dropout: got exact, must be per_rank with the activation rrelu")
        return function(*args, **given)

    def _of_batches(self, function: _Function, count: int, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """Call a function of batches with rows of zeros for the examples of other processes."""
        first = args[0] if args else given.pop("input", None)
        batches = (first, *args[1:count])
        each = self._rows_each(first)
        if not each or len(batches) < count:
            return function(*batches, *args[count:], **given)
        drawn = function(*(self._padded(batch, each) for batch in batches), *args[count:], **given)
        own = drawn[self.rows.start * each : self.rows.stop * each]
        return first.copy_(own) if given.get("inplace") else own

    def _fill(self, function: _Function, tensor: Tensor, args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        """Fill a tensor with its rows of numbers that are drawn for all."""
        each = self._rows_each(tensor)
        if not each:
            found: Tensor = function(tensor, *args, **given)
            return found
        drawn = function(tensor.new_empty((self.whole * each, *tensor.shape[1:])), *args, **given)
        return tensor.copy_(drawn[self.rows.start * each : self.rows.stop * each])

    def _make(self, function: _Function, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """Make random numbers; those of a shape (examples, ...) for all, of which the own rows are returned."""
        size = (
            tuple(given["size"])
            if "size" in given
            else tuple(args[0] if len(args) == 1 and _is_size(args[0]) else args)
        )
        if not size or size[0] != len(self.rows):
            return function(*args, **given)
        rest = {key: value for key, value in given.items() if key != "size"}
        return function((self.whole, *size[1:]), **rest)[self.rows.start : self.rows.stop]

    def _rows_each(self, tensor: Any) -> int:
        """Return the rows of a tensor for each example, 0 if it has no rows of examples."""
        if not isinstance(tensor, Tensor) or not tensor.ndim or len(tensor) % len(self.rows):
            return 0
        return len(tensor) // len(self.rows)

    def _padded(self, batch: Tensor, each: int) -> Tensor:
        """Return a batch with rows of zeros before and after it, for the examples of other processes."""
        before, after = self.rows.start * each, (self.whole - self.rows.stop) * each
        zeros = [batch.new_zeros((count, *batch.shape[1:])) for count in (before, after)]
        return torch.cat([zeros[0], batch, zeros[1]])


def _drops(*args: Any, **given: Any) -> bool:
    """Return True if the arguments of scaled_dot_product_attention say that weights are dropped."""
    return bool(given.get("dropout_p", args[4] if len(args) > 4 else 0.0))


def _is_size(value: Any) -> bool:
    return isinstance(value, (tuple, list))


def _refuse_dropout(*args: Any, **given: Any) -> None:
    """Raise ConfigError for torch's attention with dropout, which draws where its masks cannot be seen."""
    found = _ATTENTION.bind(*args, **given).arguments
    rate = found.get("dropout_p", 0.0)
    if rate and found.get("training", True):
        raise ConfigError(
            f"strategy.dropout: got exact, must be per_rank with the attention of torch, whose dropout of {rate:g} "
            "cannot be drawn for several processes together"
        )
