"""task=export: the model of a finished run as one file for other programs, checked, with a model card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

import runner
from runner.assemble.predictor import Predictor
from runner.engine.saving.storage import printable, write_atomic
from runner.errors import ConfigError, brief, escaped
from runner.printing import write_stdout
from runner.registry import register
from runner.roles import FilePath, Role
from runner.schema import Positive
from runner.tasks.job import Job
from runner.tasks.out_file import check_name, out_file
from runner.tasks.trained.graphs import (
    INPUT,
    SUFFIXES,
    Format,
    PredictionGraph,
    check_installed,
    largest_difference,
    make_file,
    output_name,
)
from runner.tasks.trained.read_run import read_run, restore_predictor
from runner.tasks.trained.saved_run import SavedRun, known_facts

# Sizes of the batches on which a file is checked
_BATCHES = (1, 3, 8)
_CARD = ".json"


@register("task")
def export(
    job: Job,
    *,
    format: Annotated[Format, Role.OBSERVATION],  # noqa: A002
    out: Annotated[str | None, Role.PATH, FilePath()],
    tolerance: Positive,
    overwrite: bool,
) -> int:
    """Write the model of `run=<folder>` into one file: raw images (any number) in, probabilities out.

    The preprocessing and the prediction method are part of the graph, in float32; `safetensors` has the tensors only.
    The file is loaded and compared with the run's own predictions before it is written. A model card in JSON beside it
    has classes, config, scores, fingerprint of the data, and the form of input and output.
    """
    if out is None:
        name = f"model{SUFFIXES[format][0]}"
        raise ConfigError(f"task.out: got null; expected a file to write: task.out={name}")
    card_path = Path(out).with_suffix(_CARD)
    with out_file(out, SUFFIXES[format], overwrite=overwrite) as path:
        check_name(card_path, (_CARD,), overwrite=overwrite)
        check_installed(format)
        run = read_run(job, task="export").with_settings(device="cpu")
        predictor = restore_predictor(run, known_facts(run), threads=True)
        # Whatever the precision of the training
        predictor.model.float().to(memory_format=torch.contiguous_format)
        content, difference = _checked_file(run, predictor, format, tolerance)
        card = _card(run, predictor, format, content, path.name)
        card |= {"max_difference": difference, "tolerance": tolerance}
        write_atomic(path, content)
        write_atomic(card_path, json.dumps(card, indent=1).encode() + b"\n")
    sizes = f"{', '.join(map(str, _BATCHES[:-1]))} and {_BATCHES[-1]}"
    write_stdout(
        f"exported      {printable(path)} ({len(content):,} bytes), card {printable(card_path)}\n"
        f"checked       batches of {sizes} images: max difference {difference:.2g} from the run's own "
        f"{output_name(predictor)} in float32\n"
    )
    return 0


def _checked_file(run: SavedRun, predictor: Predictor, format_: Format, tolerance: float) -> tuple[bytes, float]:
    """Return the bytes of a file, and its largest difference from the run's own predictions; ConfigError if too large.

    The predictions of the run are made first: making a file must not change what it is compared with.
    """
    batches = _test_batches(predictor)
    _check_repeatable(run, predictor, batches[-1])
    with torch.no_grad():
        expected = [PredictionGraph(predictor)(images) for images in batches]
    content, exported = make_file(predictor, batches[-1], format_)
    difference = largest_difference(exported, batches, expected)
    if not difference <= tolerance:
        raise ConfigError(
            f"task.format: the {format_} file predicts other values than the run: max difference {difference:.2g}; "
            f"expected at most {tolerance:g} (task.tolerance)"
        )
    return content, difference


def _test_batches(predictor: Predictor) -> list[Tensor]:
    """Return batches of noise, of smooth noise and of plain images, the same every time; features for a table."""
    shape = predictor.facts.shape
    source = torch.Generator().manual_seed(0)
    count = sum(_BATCHES)
    if shape[1:] == (1, 1):
        return list(torch.split(torch.randn(count, *shape, generator=source), list(_BATCHES)))
    noise = torch.rand(count, *shape, generator=source)
    smooth = F.interpolate(torch.rand(count, shape[0], 2, 2, generator=source), shape[1:], mode="bilinear")
    kinds = torch.arange(count)[:, None, None, None] % 3
    mixed = torch.where(kinds == 0, noise, torch.where(kinds == 1, smooth, smooth.mean((2, 3), keepdim=True)))
    return list(torch.split((mixed * 255).round().to(torch.uint8), list(_BATCHES)))


def _check_repeatable(run: SavedRun, predictor: Predictor, images: Tensor) -> None:
    """Raise ConfigError if predictions are drawn at random: a graph would draw other numbers."""
    own = PredictionGraph(predictor)
    with torch.no_grad():
        predictor.reseed(0)
        first = own(images)
        predictor.reseed(1)
        second = own(images)
    if not torch.equal(first, second):
        method = run.config["predict"]["name"]
        raise ConfigError(f"predict={method}: draws random numbers, which no file keeps; to export: predict=plain")


def _card(run: SavedRun, predictor: Predictor, format_: Format, content: bytes, name: str) -> dict[str, Any]:
    """Return the model card."""
    facts, result = predictor.facts, run.result
    features = facts.shape[1:] == (1, 1)
    fingerprint = run.data.fingerprint
    return {
        "file": name,
        "format": format_,
        "sha256": hashlib.sha256(content).hexdigest(),
        "made_with": {"runner": runner.__version__, "torch": torch.__version__},
        "run": {"folder": brief(escaped(str(run.folder))), "weights": run.path.name, "status": result.status.value},
        "input": {
            "name": INPUT,
            "dtype": "float32" if features else "uint8",
            "shape": ["batch", *facts.shape],
            "axes": "NCHW",
            "values": "features as in the table" if features else "0 to 255",
        },
        "output": {"name": output_name(predictor), "dtype": "float32", "shape": ["batch", len(facts.classes)]},
        "classes": list(facts.classes),
        "scores": result.scores,
        "test_reads": result.test_reads,
        "data": {"name": run.config["data"]["name"], **(fingerprint.to_record() if fingerprint else {})},
        **_what_was_exported(run),
    }


def _what_was_exported(run: SavedRun) -> dict[str, Any]:
    """Return the config of a run; of an ensemble how it combines its members, with their configs."""
    if run.manifest is None:
        return {"config": run.config}
    members = zip(run.manifest.members, run.members, strict=True)
    return {
        "ensemble": {
            "combine": run.manifest.combine,
            "temperature": run.manifest.temperature,
            "members": [{**asdict(entry), "config": member.config} for entry, member in members],
        }
    }
