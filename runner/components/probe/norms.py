"""What norms say on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

WHOLE = "_global"  # all tensors together


def with_whole(numbers: list[float], order: int = 2) -> list[float]:
    """Return norms with that of all the tensors together at the end."""
    whole = math.hypot(*numbers) if order == 2 else math.fsum(numbers)
    return [*numbers, whole]


def named(group: str, names: Sequence[str], numbers: list[float]) -> dict[str, float]:
    """Return norms (L2) by tag, with that of all the tensors together."""
    return {f"{group}/{name}": norm for name, norm in zip([*names, WHOLE], with_whole(numbers), strict=True)}
