"""How a run computes: precision, memory format, compiling, CUDA graphs. What `auto` means is settled here."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from runner.assemble.half import halve
from runner.engine.forward import Fast, Forward, captured, compiled, compiled_with_graphs, passed_over, plainly, refused
from runner.engine.recipe import Recipe
from runner.errors import ConfigError
from runner.settings import Settings

# What compile=auto reckons with, on CUDA: guesses of the right order, of a large GPU in half precision.
WORTH = 20.0  # a run is compiled if it takes so many times as long as compiling it
COMPILING = 0.6  # seconds for each module without children
LAUNCHING = 60e-6  # seconds that such a module takes in a step, however small: forward and backward are launched
RATE = 5e13  # floating-point operations in a second of large convolutions


def settle(settings: Settings, device: torch.device) -> Settings:
    """Return the settings with what `precision` and `memory_format` mean on a device, and `compile` if it never pays.

    Raises ConfigError for what the device or this machine cannot do.
    """
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = ("bf16" if half else "fp32") if settings.precision == "auto" else settings.precision
    last = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    layout = ("channels_last" if last else "contiguous") if settings.memory_format == "auto" else settings.memory_format
    lacking = missing(device)
    if settings.compile is True and lacking:
        raise ConfigError(f"compile: got true, but torch.compile needs {lacking}, which is not here; compile=false")
    never = settings.compile == "auto" and (device.type != "cuda" or lacking)
    if settings.cuda_graphs and device.type != "cuda":
        raise ConfigError(f"cuda_graphs: got true, but the run computes on {device.type}, must be false there")
    return replace(
        settings,
        precision=precision,
        memory_format=layout,
        compile=False if never else settings.compile,
    )


def missing(device: torch.device) -> str | None:
    """Return what torch.compile needs on a device and does not find."""
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "a GPU of compute capability 7.0 or more"
        if find_spec("triton") is None:
            return "triton"
        names = [os.environ.get("CC", ""), "gcc", "clang", "cc"]
        return None if any(map(shutil.which, filter(None, names))) else "a C compiler (gcc, clang or CC)"
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(name) else f"a C++ compiler ({name})"


def lay_out(model: nn.Module, settings: Settings) -> None:
    """Put a model into the precision, and its kernels into the memory format: images and maps follow both."""
    if settings.precision == "pure_bf16":
        halve(model)
    if settings.memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)


def forward_of(
    model: nn.Module, settings: Settings, *, shape: tuple[int, ...], step: int, steps: int
) -> tuple[Forward, bool]:
    """Return the training forward that the settings ask for, and whether it is compiled.

    A full optimizer step has `step` examples, and there are `steps` of them.
    """
    examples = -(-step // settings.accumulate)  # of the first micro-batch, as Tensor.chunk cuts
    required, graphs = settings.compile is True, settings.cuda_graphs
    compiling = required or (settings.compile == "auto" and pays(model, shape, step, steps))
    if compiling:
        what = "torch cannot compile this model"
        failed = refused("compile", what) if required else passed_over(f"compile=auto: {what}")
        return Fast(model, compiled_with_graphs if graphs else compiled, examples=examples, failed=failed), True
    if graphs:
        what = "this model cannot be captured"
        return Fast(model, captured, examples=examples, failed=refused("cuda_graphs", what)), False
    return plainly, False


def pays(model: nn.Module, shape: tuple[int, ...], step: int, steps: int) -> bool:
    """Tell whether a run is long enough, by its operations, for compiling it to cost a twentieth or less."""
    modules = sum(not list(module.children()) for module in model.modules())
    seconds = max(modules * LAUNCHING, 3 * step * operations(model, shape) / RATE)
    return steps * seconds >= WORTH * modules * COMPILING


def operations(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the floating-point operations of one example's forward pass; 0 where tensors on meta cannot tell."""
    from torch.utils.flop_counter import FlopCounterMode  # takes 0.2 s to import

    tensors = {name: as_float(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.device("meta"), torch.no_grad():
            torch.func.functional_call(model, tensors, (torch.zeros(2, *shape),))
    except RuntimeError:
        return 0.0
    return counter.get_total_flops() / 2


def as_float(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape that holds nothing, of one type whatever the precision (counts aside)."""
    return tensor.detach().to("meta", torch.float32 if tensor.is_floating_point() else tensor.dtype)


def words(model: nn.Module, settings: Settings, recipe: Recipe) -> list[str]:
    """Return in one line how a run computes, or nothing where it is the plain way."""
    kernels = any(parameter.ndim == 4 for parameter in model.parameters())
    said: list[str] = [settings.precision] if settings.precision != "fp32" else []
    said += ["channels_last"] if kernels and settings.memory_format == "channels_last" else []
    said += ["compiled"] if recipe.compiled else []
    said += ["CUDA graphs"] if settings.cuda_graphs else []
    return [f"computes with {', '.join(said)}"] if said else []
