"""The global settings of torch: those of a new process during a call, the caller's afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

_Setting = tuple[Callable[[], Any], Callable[[Any], Any], Any]


@contextmanager
def default_torch() -> Iterator[None]:
    """Give torch the settings of a new process while the body runs, and those of the caller afterwards.

    A run computes the same numbers wherever it is started, and it leaves nothing behind: threads, random numbers,
    default dtype and device, gradients, autocast, deterministic algorithms, TF32 and kernels of attention.
    """
    with ExitStack() as held:
        for read, write, standard in _settings():
            before = read()
            held.callback(write, before)
            write(before if standard is None else standard)
        if torch.get_default_device().type != "cpu":
            # Another default would be hidden by the `with torch.device(...)` of a caller, and outlive it
            held.enter_context(torch.device("cpu"))
        gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
        held.enter_context(torch.random.fork_rng(gpus))
        # Not `no_grad` and its like: the caller may be inside one
        held.enter_context(torch.inference_mode(False))
        held.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                held.enter_context(torch.autocast(kind, enabled=False))
        yield


def _settings() -> list[_Setting]:
    """Return how to read and to write each setting, and its value in a new process; None: a run sets it itself."""
    # torch.get_float32_matmul_precision raises an error where the caller has set one of these
    backends: Any = torch.backends
    cuda, cudnn, mkldnn = backends.cuda, backends.cudnn, backends.mkldnn
    # The general ones first: "none" takes the value of the one above
    precisions = [backends, cudnn, mkldnn, cuda.matmul, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    return [
        (torch.get_num_threads, torch.set_num_threads, None),
        (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        (
            _deterministic,
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
            (False, False),
        ),
        *(_attribute(each, "fp32_precision", "none") for each in precisions),
        *(_attribute(each, "fp32_precision", "tf32") for each in (cudnn.conv, cudnn.rnn)),
        _attribute(cudnn, "enabled", True),
        _attribute(cudnn, "benchmark", False),
        _attribute(cudnn, "deterministic", False),
        (cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True),
        (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp, True),
        (cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
        (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, True),
    ]


def _attribute(holder: Any, name: str, standard: Any) -> _Setting:
    """Return a setting that is an attribute of a module of torch."""
    return partial(getattr, holder, name), partial(setattr, holder, name), standard


def _deterministic() -> tuple[bool, bool]:
    """Return if only deterministic algorithms are allowed, and if others only warn."""
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
