"""The global fields of a config, with their types and ranges; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

from runner.relations import OneOf, With
from runner.schema import Duration, FolderName, ModuleName, Pattern, Positive, PositiveInt, Range


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The global fields of `conf/config.yaml`, checked."""

    epochs: Positive
    steps: PositiveInt | None
    seed: Annotated[int, Range(0, 2**32 - 1)]
    device: Annotated[str, Pattern(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps")]
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"]
    memory_format: Literal["auto", "channels_last", "contiguous"]
    compile: bool | Literal["auto"]
    cuda_graphs: Annotated[bool, With("device", "cpu", OneOf((False,))), With("device", "mps", OneOf((False,)))]
    # A graph writes where it wrote before: each micro-batch's gradients would be written over the last's
    accumulate: Annotated[int, Range(1), With("cuda_graphs", True, OneOf((1,)))]
    clip: Positive | None
    monitor: Literal["val/accuracy", "val/loss", "train/accuracy"]
    patience: PositiveInt | None
    validate_every: Duration
    checkpoint_every: Duration
    log_every: PositiveInt
    test: Literal["auto", "end", "never"]
    figures: Literal["auto", "always", "never"]
    plugins: list[ModuleName]
    outputs: str
    name: FolderName | None
    sweep: FolderName | None
    resume: str | None
    run: str | None
    runs: str | list[str] | None
    note: str


SETTINGS = get_type_hints(Settings, include_extras=True)
