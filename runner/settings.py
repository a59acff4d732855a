"""The global fields of a config, with their types, ranges and roles; imports no torch."""

from typing import Annotated, Literal, NamedTuple

from runner.relations import InRun, NotWithOption, OneOf, With
from runner.roles import Aspect, FilePath, ReadBy, Role, Unnamed, Unswept, Verbatim
from runner.schema import Duration, FolderName, ModuleName, Pattern, Positive, PositiveInt, Range

NO_LIKELIHOOD = "its outputs are scores without probabilities"


class Settings(NamedTuple):
    """The global fields of `conf/config.yaml`, checked; a field without a role changes the experiment."""

    epochs: Annotated[Positive, Aspect.BUDGET]
    steps: Annotated[PositiveInt | None, Aspect.BUDGET]
    seed: Annotated[int, Range(0, 2**32 - 1), Role.SEED]
    device: Annotated[
        str, Pattern(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps"), Role.EXECUTION, Unnamed()
    ]
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"]
    memory_format: Annotated[Literal["auto", "channels_last", "contiguous"], Role.EXECUTION]
    threads: Annotated[PositiveInt | Literal["auto"], Role.EXECUTION, Unnamed()]
    compile: Annotated[bool | Literal["auto"], Role.EXECUTION]
    cuda_graphs: Annotated[
        bool, With("device", "cpu", OneOf((False,))), With("device", "mps", OneOf((False,))), Role.EXECUTION
    ]
    # A graph writes where it wrote before: each micro-batch's gradients would be written over the last's
    accumulate: Annotated[int, Range(1), With("cuda_graphs", True, OneOf((1,)))]
    clip: Positive | None
    monitor: Annotated[
        Literal["val/accuracy", "val/loss", "val/nll", "train_eval/accuracy"],
        NotWithOption("loss", ("hinge", "mse"), "val/nll", NO_LIKELIHOOD),
        Aspect.SELECTION,
    ]
    patience: Annotated[PositiveInt | None, Aspect.SELECTION]
    validate_every: Annotated[Duration, InRun(), Aspect.SELECTION, Aspect.CADENCE]
    checkpoint_every: Annotated[Literal["auto"] | Annotated[Duration, InRun()], Role.OBSERVATION]
    log_every: Annotated[PositiveInt, Role.OBSERVATION, Unnamed()]
    test: Annotated[Literal["auto", "end", "never"], Role.OBSERVATION]
    figures: Annotated[Literal["auto", "always", "never"], Role.OBSERVATION, Unnamed()]
    plugins: Annotated[list[ModuleName], Role.EXECUTION, Unnamed(), Unswept()]
    outputs: Annotated[str, Role.PATH, FilePath(), Unswept()]
    name: Annotated[FolderName | None, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]
    sweep: Annotated[FolderName | None, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]
    resume: Annotated[str | None, Role.PATH, FilePath()]
    resume_numerics: Annotated[Literal["same", "new"], Role.EXECUTION, Unnamed()]
    resume_data: Annotated[Literal["same", "new"], Role.EXECUTION, Unnamed()]
    rerun: Annotated[Literal["never", "changed"], Role.EXECUTION, Unnamed(), Unswept()]
    run: Annotated[str | None, Role.PATH, FilePath(), ReadBy("evaluate", "predict")]
    runs: Annotated[str | list[str] | None, Role.PATH, FilePath(lists=True), ReadBy("compare")]
    note: Annotated[str, Role.OBSERVATION, Verbatim(), Unnamed(), Unswept()]


SETTINGS = dict(Settings.__annotations__)
GROUPS = {"probe": Role.OBSERVATION}  # groups whose every option and knob has one role
