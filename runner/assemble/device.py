"""The device of a run."""

from __future__ import annotations

import torch

from runner.engine.world import ALONE, World
from runner.errors import ConfigError


def device_of(name: str, world: World = ALONE) -> torch.device:
    """Return the device of a name, with its number; `auto` is the first available of cuda, mps and cpu.

    Without a number, each process on a machine gets its own GPU.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in available.items() if present)
    device = world.device(torch.device(name))
    if not available[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        present = ", ".join(kind for kind, usable in available.items() if usable)
        raise ConfigError(f"device: got '{name}', must be auto or one that this machine has ({present})")
    # Tensors name their device with its number, as in cuda:0.
    return torch.empty(0, device=device).device
