"""Execution settings: precision, memory format, compile, CUDA graphs; `auto` becomes what the device supports."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adafactor, Adagrad, NAdam, Optimizer, RMSprop

from runner.assemble.exact_convolutions import replace_inexact
from runner.engine.forward import (
    FastForward,
    Forward,
    captured,
    compiled,
    compiled_with_graphs,
    plain_forward,
    raise_config_error,
    warn_and_use_plain_forward,
)
from runner.engine.parts import is_norm
from runner.engine.recipe import Recipe
from runner.errors import ConfigError
from runner.settings import Settings

# Assumptions of compile=auto about CUDA: orders of magnitude for a large GPU in half precision.
# A run is compiled if it takes at least this many times as long as compiling it.
_MIN_GAIN = 20.0
# Seconds to compile one module without children.
_COMPILE_SECONDS = 0.6
# Least seconds of such a module in a step: its kernels are launched in the forward and in the backward pass.
_LAUNCH_SECONDS = 60e-6
# Floating-point operations per second of large convolutions.
_FLOPS = 5e13

# The storage type of precision=pure_bf16.
_BF16 = torch.bfloat16
# The largest share of a bfloat16 number that a subtraction can round away, for any number.
_BF16_STEP = 2.0**-8
# Options of a parameter group that give the share of a running average that remains after a step.
_DECAYS = ("betas", "momentum", "alpha")
_USE_BF16 = "choose precision=bf16"


def resolve(settings: Settings, device: torch.device) -> Settings:
    """Return the settings with `auto` resolved for a device, as far as that does not depend on the model.

    Raises ConfigError for settings that the device or this machine does not support.
    """
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = ("bf16" if half else "fp32") if settings.precision == "auto" else settings.precision
    last = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    layout = ("channels_last" if last else "contiguous") if settings.memory_format == "auto" else settings.memory_format
    lacking = _missing_for_compile(device)
    if settings.compile is True and lacking:
        raise ConfigError(
            f"compile: got true, but torch.compile needs {lacking}, which this machine lacks; set compile=false"
        )
    never = settings.compile == "auto" and (device.type != "cuda" or lacking)
    if settings.cuda_graphs and device.type != "cuda":
        raise ConfigError(f"cuda_graphs: got true, but the run computes on {device.type}, must be false there")
    return settings._replace(
        precision=precision,
        memory_format=layout,
        compile=False if never else settings.compile,
    )


def _missing_for_compile(device: torch.device) -> str | None:
    """Return what torch.compile needs on a device but this machine lacks, None if nothing."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "a GPU of compute capability 7.0 or more"
        if find_spec("triton") is None:
            return "triton"
        names = [os.environ.get("CC", ""), "gcc", "clang", "cc"]
        return None if any(map(shutil.which, filter(None, names))) else "a C compiler (gcc, clang or CC)"
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(name) else f"a C++ compiler ({name})"


def convert_model(model: nn.Module, settings: Settings) -> None:
    """Convert a model's weights in place to the precision and the memory format; activations follow both."""
    if settings.precision == "pure_bf16":
        _round_to_bf16(model)
    if settings.precision in ("bf16", "pure_bf16"):
        replace_inexact(model)
    if settings.memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)


def forward_of(
    model: nn.Module,
    settings: Settings,
    *,
    shape: tuple[int, int, int],
    batch: int,
    steps: int,
    smaller: int = 0,
) -> tuple[Forward, bool]:
    """Return the training forward pass that the settings ask for, and True if it is compiled.

    `batch` is the number of examples of a full optimizer step, `steps` the number of steps, the first `smaller`
    of them with smaller images, which use the plain forward pass.
    """
    # The size of the first micro-batch, as Tensor.chunk cuts.
    examples = -(-batch // settings.accumulate)
    size = shape[1:] if smaller else None
    required, graphs = settings.compile is True, settings.cuda_graphs
    compiling = required or (settings.compile == "auto" and compiling_pays(model, shape, batch, steps - smaller))
    if compiling:
        what = "torch cannot compile this model"
        on_failure = (
            raise_config_error("compile", what) if required else warn_and_use_plain_forward(f"compile=auto: {what}")
        )
        return FastForward(
            model, compiled_with_graphs if graphs else compiled, examples=examples, on_failure=on_failure, size=size
        ), True
    if graphs:
        what = "this model cannot be captured"
        return FastForward(
            model, captured, examples=examples, on_failure=raise_config_error("cuda_graphs", what), size=size
        ), False
    return plain_forward, False


def compiling_pays(model: nn.Module, shape: tuple[int, ...], batch: int, steps: int) -> bool:
    """Return True if compiling takes at most a twentieth of the run's time, estimated from its operations."""
    modules = sum(not list(module.children()) for module in model.modules())
    seconds = max(modules * _LAUNCH_SECONDS, 3 * batch * count_flops(model, shape) / _FLOPS)
    return steps * seconds >= _MIN_GAIN * modules * _COMPILE_SECONDS


def count_flops(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of one example's forward pass; 0 if it cannot run on the meta device."""
    # Imported here because it takes 0.2 s.
    from torch.utils.flop_counter import FlopCounterMode

    tensors = {name: _as_meta_float(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.device("meta"), torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.zeros(2, *shape),))
    except RuntimeError:
        return 0.0
    return counter.get_total_flops() / 2


def _as_meta_float(tensor: Tensor) -> Tensor:
    """Return a meta tensor of the same shape, of float32 unless it holds integers."""
    return tensor.detach().to("meta", torch.float32 if tensor.is_floating_point() else tensor.dtype)


def describe_execution(model: nn.Module, settings: Settings, recipe: Recipe) -> list[str]:
    """Return a summary line on how a run computes, or nothing for the plain way."""
    kernels = any(parameter.ndim == 4 for parameter in model.parameters())
    parts: list[str] = [settings.precision] if settings.precision != "fp32" else []
    parts += ["channels_last"] if kernels and settings.memory_format == "channels_last" else []
    parts += ["compiled"] if recipe.compiled else []
    parts += ["CUDA graphs"] if settings.cuda_graphs else []
    return [f"computes with {', '.join(parts)}"] if parts else []


def _round_to_bf16(model: nn.Module) -> None:
    """Round the weights of a model to bfloat16 in place, except those of norms; buffers stay as they are.

    The forward pass is that of `bf16`: autocast does not cast the weights again, rounds the images once in the first
    layer, and computes norms and losses in float32. Averages of weights are in float32. There is no pure fp16: a loss
    scaler rejects float16 gradients, and without one values below 6e-8 are lost.
    """
    for module in model.modules():
        if not is_norm(module):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(_BF16)


def check_bf16_state(optimizer: Optimizer) -> None:
    """Raise ConfigError for an optimizer whose state would stop changing in bfloat16, without a warning.

    NAdam keeps its product over all steps in float32, but torch rounds it when a run is resumed.
    """
    if isinstance(optimizer, (Adafactor, Adagrad, NAdam)) or hasattr(optimizer, "averaged"):
        kind = type(optimizer).__name__
        raise ConfigError(f"precision: pure_bf16 cannot hold what {kind} accumulates over all steps; {_USE_BF16}")
    if isinstance(optimizer, RMSprop) and any(group["centered"] for group in optimizer.param_groups):
        raise ConfigError(f"precision: pure_bf16 rounds a variance below zero (optim.centered=true); {_USE_BF16}")
    for key, remains in _decays(optimizer):
        if 1 - remains < _BF16_STEP:
            raise ConfigError(
                f"precision: pure_bf16 cannot hold a running average that keeps {remains:g} of its value in each step "
                f"({key}), because it would never decay; use at most {1 - _BF16_STEP:.3f}, or {_USE_BF16}"
            )


def _decays(optimizer: Optimizer) -> Iterator[tuple[str, float]]:
    """Yield the name of each decay option of an optimizer, with the share of the average that remains after a step."""
    for group in optimizer.param_groups:
        for key in _DECAYS:
            value: Any = group.get(key, 0.0)
            yield from ((key, float(each)) for each in (value if isinstance(value, (list, tuple)) else [value]))
