"""The global fields of a config, with their types, ranges and roles; imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from runner.relations import InRun, NotWithOption, OneOf, With
from runner.roles import Aspect, FilePath, ReadBy, Role, Unnamed, Unswept, Verbatim
from runner.schema import Duration, FolderName, ModuleName, Origin, Pattern, Positive, PositiveInt, Range, Sha256

_ROUNDED_AWAY = "rounding to bfloat16 would lose most of its perturbation of the weights"
NO_LIKELIHOOD = "its outputs are scores without probabilities"


class Settings(NamedTuple):
    """The global fields of `conf/config.yaml`, checked; a field without a role changes the experiment."""

    epochs: Annotated[Positive, Aspect.BUDGET]
    steps: Annotated[PositiveInt | None, Aspect.BUDGET]
    seed: Annotated[int, Range(0, 2**32 - 1), Role.SEED]
    device: Annotated[
        str, Pattern(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps"), Role.EXECUTION, Unnamed()
    ]
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"],
        NotWithOption("update", ("sam",), ("pure_bf16",), _ROUNDED_AWAY),
    ]
    memory_format: Annotated[Literal["auto", "channels_last", "contiguous"], Role.EXECUTION]
    threads: Annotated[PositiveInt | Literal["auto"], Role.EXECUTION, Unnamed()]
    compile: Annotated[bool | Literal["auto"], Role.EXECUTION]
    cuda_graphs: Annotated[
        bool, With("device", "cpu", OneOf((False,))), With("device", "mps", OneOf((False,))), Role.EXECUTION
    ]
    # A graph writes where it wrote before: each micro-batch's gradients would be written over the last's
    accumulate: Annotated[int, Range(1), With("cuda_graphs", True, OneOf((1,)))]
    effective_batch_size: PositiveInt | None
    augment_repeats: PositiveInt
    clip: Positive | None
    clip_by: Literal["norm", "value", "agc"]
    # The front door and assembly know the metrics
    monitor: Annotated[
        str,
        NotWithOption("loss", ("hinge", "mse"), ("val/nll", "val/ece", "val/brier", "val/aurc"), NO_LIKELIHOOD),
        Aspect.SELECTION,
    ]
    patience: Annotated[PositiveInt | None, Aspect.SELECTION]
    validate_every: Annotated[Duration, InRun(), Aspect.SELECTION, Aspect.CADENCE]
    checkpoint_every: Annotated[Literal["auto"] | Annotated[Duration, InRun()], Role.OBSERVATION]
    keep: Annotated[Literal["auto", "best+last", "best", "none"], Role.OBSERVATION, Unnamed()]
    log_every: Annotated[PositiveInt, Role.OBSERVATION, Unnamed()]
    test: Annotated[Literal["auto", "end", "never"], Role.OBSERVATION]
    figures: Annotated[Literal["auto", "always", "never"], Role.OBSERVATION, Unnamed()]
    doctor: Annotated[Literal["auto", "never"], Role.OBSERVATION, Unnamed()]
    predictions: Annotated[Literal["auto", "always", "never"], Role.OBSERVATION, Unnamed()]
    plugins: Annotated[list[ModuleName], Role.EXECUTION, Unnamed(), Unswept()]
    outputs: Annotated[str, Role.PATH, FilePath(), Unswept()]
    name: Annotated[FolderName | None, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]
    sweep: Annotated[FolderName | None, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]
    init_from: Annotated[str | None, FilePath(sweeps=True)]
    init_sha256: Annotated[Sha256 | None, Unnamed()]
    init_download: Annotated[bool, Role.EXECUTION, Unnamed()]
    extend: Annotated[str | None, Role.PATH, FilePath(), Unswept(), ReadBy("train")]
    extend_restart: Annotated[bool, Unswept()]
    extended_from: Annotated[Origin | None, Unnamed(), Unswept()]
    resume: Annotated[str | None, Role.PATH, FilePath()]
    resume_numerics: Annotated[Literal["same", "new"], Role.EXECUTION, Unnamed()]
    resume_data: Annotated[Literal["same", "new"], Role.EXECUTION, Unnamed()]
    rerun: Annotated[Literal["never", "changed"], Role.EXECUTION, Unnamed(), Unswept()]
    folds: Annotated[Annotated[int, Range(2)] | None, Aspect.SELECTION]
    fold: Annotated[PositiveInt | None, Aspect.SELECTION]
    run: Annotated[str | None, Role.PATH, FilePath(), ReadBy("evaluate", "predict", "export", "probe_stages", "doctor")]
    runs: Annotated[
        str | list[str] | None, Role.PATH, FilePath(lists=True), ReadBy("compare", "clean", "ensemble", "doctor")
    ]
    note: Annotated[str, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]


def extended_step(config: Mapping[str, Any]) -> int | None:
    """Return the step from which a run goes on that extends another one, None if it extends none."""
    found = config["extended_from"]
    return None if found is None else int(found.rpartition("@")[2])


SETTINGS = dict(Settings.__annotations__)
# What does nothing without another setting, and the value that asks for nothing, for those with one
NEEDS = {
    "fold": "folds",
    "clip_by": "clip",
    "init_sha256": "init_from",
    "extend_restart": "extend",
    "extended_from": "extend",
}
NEUTRAL = {"clip_by": "norm"}
# Groups whose every option and knob has one role; the knobs of the monitored metric are part of the experiment
GROUPS = {"probe": Role.OBSERVATION, "metric": Role.OBSERVATION, "tracker": Role.OBSERVATION}
# Of these, the groups that folder names leave out and that are the same for all trials of a sweep
UNNAMED = ("tracker",)
# The scores that every validation has, as `monitor` takes them
SCORES = ("val/accuracy", "val/loss", "val/nll", "train_eval/accuracy")
