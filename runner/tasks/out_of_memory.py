"""The line about a run that ran out of memory: its batch, the peak, and the override to copy."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from runner.errors import KEY, OUT_OF_MEMORY, ConfigError, brief, short_reason, too_large
from runner.printing import counted


def out_of_memory(error: BaseException, config: Mapping[str, Any] | None) -> ConfigError | None:
    """Return the ConfigError for an error about sizes that do not fit into memory, None for other errors.

    Args:
        error: What was raised.
        config: The config of the run that was training or evaluating; None if nothing had been built yet.
    """
    refused = too_large(error)
    data = config.get("data") if config else None
    batch = data.get("batch_size") if isinstance(data, Mapping) else None
    if refused is None or config is None or type(batch) is not int:
        return refused
    micro = config["accumulate"]
    batches = f" with batches of {counted(batch, 'image')}" + (f", {micro} of them in a step" if micro > 1 else "")
    # A step has as many examples as before. CUDA graphs allow one micro-batch only
    part = next((each for each in range(2, batch // 2 + 1) if batch % each == 0), None)
    hint = "choose" if batch == 1 else "choose a smaller batch, or"
    if part and not config["cuda_graphs"]:
        hint = f"try data.batch_size={batch // part} accumulate={part * micro}, or"
    text = brief(short_reason(error), KEY)
    return ConfigError(f"{OUT_OF_MEMORY}{batches}{_peak_in_words()}; {hint} a smaller model or image ({text})")


def _peak_in_words() -> str:
    """Return the peak memory of this process in words: of the tensors on the GPU if it uses one."""
    torch = sys.modules.get("torch")
    with suppress(Exception):
        from runner.engine.timing import peak_memory

        on_gpu = torch is not None and torch.cuda.is_initialized()
        peak = peak_memory(torch.device("cuda" if on_gpu else "cpu"))  # type: ignore[union-attr]
        return f" (peak {peak / 1e6:,.0f} MB{' on the GPU' if on_gpu else ''})"
    return ""
