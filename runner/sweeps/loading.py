"""Load torch, the components and the data in a process before it runs or forks trials.

Nothing here computes with threads, since a forked child would wait for them forever. Nothing here touches CUDA, since
a process that uses a GPU cannot be forked.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import Any

from runner.sweeps.channel import Message
from runner.sweeps.run_sizes import Size, estimated_in_fork

# All modules that a trial imports; a test compares this list with a real trial
_MODULES = (
    "runner.tasks.train",
    "numpy.ctypeslib",
    "numpy.ma",
    "runner.rich_console",
    "rich.table",
    "safetensors.torch",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.custom_scalar.layout_pb2",
    "tensorboard.plugins.custom_scalar.metadata",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "tensorboard.plugins.text.metadata",
)
# The private modules of libraries among these
_PRIVATE_MODULES = (
    "rich._emoji_codes",
    "torch.fx.experimental._constant_symnode",
    "torch.nested._internal.nested_tensor",
)


def load(message: Message) -> int:
    """Import what trials need and read their data; return the number of GPUs."""
    # Counts GPUs through NVML, because a process that has initialized CUDA cannot be forked
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    from runner.engine import provenance
    from runner.engine.user_code import imported_code

    torch.set_num_threads(1)
    sys.argv = message["argv"]
    for name in _MODULES:
        importlib.import_module(name)
    for name in _PRIVATE_MODULES:
        # Where another version of the library has no such module, trials import what they need
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # The trial meets the same error and reports it
    with contextlib.suppress(Exception):
        _load_data(message["plugins"], message["data"])
    provenance.cache_for_forks()
    imported_code(message["plugins"])
    return torch.cuda.device_count() if message["device"] != "cpu" else 0


def sizes(message: Message) -> list[Size | None]:
    """Return the estimated sizes of the runs that a message names, None where one is not known."""
    return estimated_in_fork(message["measure"]) if message["measure"] else []


def _load_data(plugins: list[str], data: dict[str, Any]) -> None:
    """Read the data set that the trials share, if it is stored in memory."""
    from runner.assemble.load_data import preload
    from runner.tasks.plugins import load_plugins

    load_plugins(plugins)
    preload({"data": data, "plugins": plugins})
