"""Make the runs of the bank, and keep their curves as JSON: what the rules read, and nothing else."""

from __future__ import annotations

import gzip
import json
import math
import shutil
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import runner
from benchmarks.doctor.data_sets import data_file, equal_examples
from benchmarks.doctor.faults import FAULTS, HEALTHY, Alteration, Fault, overrides_of
from benchmarks.doctor.mutants import mutated
from benchmarks.doctor.nets import VARIANTS
from benchmarks.doctor.plan import Case
from runner.errors import Diverged

# Long enough for the rules that need 20 blocks of 10 steps in the last third, and for 20 validations
_STEPS = 700
_QUIET = (
    *("figures=never", "predictions=never", "keep=none", "test=never", "threads=1"),
    *("augment=[]", "probe=[update_ratio,grad_norm,activations]", "validate_every=5%"),
)
# Curves that no rule reads
_LEFT_OUT = ("ratio/log10", "_best/", "train/loss_average", "time/examples", "time/peak")


def make_run(
    case: Case, folder: Path, photographs: Path | None, steps: int = _STEPS, shown: Mapping[str, Fault] = FAULTS
) -> dict[str, Any]:
    """Train a run of the bank in `folder`, and return its record; `shown` are faults by their names."""
    fault = shown[case.fault]
    words = overrides_of(case.net, fault, VARIANTS[case.variant], case.data)
    if fault.pretrained:
        words.append(f"init_from={_pretrained(case, folder, photographs, steps)}")
    data = data_file(case.data, fault.data, folder / "data", photographs)
    with mutated(fault.mutant):
        _train(case, data, folder, [f"steps={steps}", *words])
    return read_record(case, folder / "runs" / case.name, equal_examples(data))


def _train(case: Case, data: Path, folder: Path, words: Sequence[str]) -> None:
    """Train one run; one that diverges is a result as well."""
    shutil.rmtree(folder / "runs" / case.name, ignore_errors=True)
    # The words of a case replace those of all runs
    given = {word.partition("=")[0]: word for word in (*_QUIET, *words)}
    about = (f"data.root={data}", f"seed={case.seed}", f"outputs={folder / 'runs'}", f"name={case.name}")
    with suppress(Diverged):
        runner.train(["data=arrays", "data.duplicates=ignore", *about, *given.values()])


def _pretrained(case: Case, folder: Path, photographs: Path | None, steps: int) -> Path:
    """Return the folder of a healthy run of the same net and data set, which is trained if it is not there."""
    healthy = replace(case, fault=HEALTHY, part=f"pretrained-{case.part}")
    found = folder / "runs" / healthy.name
    if not (found / "result.json").is_file():
        data = data_file(case.data, Alteration.WHOLE, folder / "data", photographs)
        words = overrides_of(case.net, FAULTS[HEALTHY], data=case.data)
        _train(healthy, data, folder, [*words, f"steps={steps}", "keep=best"])
    return found


def read_record(case: Case, folder: Path, equal: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what the rules may read of a run, as JSON values."""
    result = json.loads((folder / "result.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    curves: dict[str, tuple[list[int], list[float | str]]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for tag, value in row.items():
            if tag != "step" and not tag.startswith(_LEFT_OUT):
                curve = curves.setdefault(tag, ([], []))
                curve[0].append(row["step"])
                curve[1].append(_short(value))
    config = config_part(runner.result(folder).config)
    config["data"] = {key: value for key, value in config["data"].items() if key != "root"}
    config["init_from"] = config["init_from"] and "pretrained"
    counts = environment["data"]["splits"]
    return {
        "case": asdict(case),
        "config": config,
        "status": result["status"],
        "reason": result["reason"],
        "steps": result["steps"],
        "epochs": result["epochs"],
        "train_counts": counts["train"]["counts"],
        "val_count": counts["val"]["count"],
        "equal_examples": equal,
        "curves": {tag: _packed(*curve) for tag, curve in curves.items() if not _is_of_a_bias(tag, curves)},
    }


def _is_of_a_bias(tag: str, tags: Container[str]) -> bool:
    """True for the gradient of a tensor without an update ratio, a bias or a norm's scale, which no rule reads."""
    kind, _, name = tag.partition("/")
    return kind == "grad_norm" and name != "_global" and f"ratio/l2/{name}" not in tags


def config_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that a rule may read, without paths and names."""
    left_out = {"outputs", "name", "hydra", "note", "plugins", "tracker", "sweep"}
    return {key: value for key, value in config.items() if key not in left_out}


def _short(value: float | str) -> float | str:
    """Return a number with four digits; a non-finite one stays a string."""
    return value if isinstance(value, str) or not math.isfinite(value) else float(f"{value:.4g}")


def _packed(steps: list[int], values: list[float | str]) -> dict[str, Any]:
    """Return a curve; that of each step from the first without its steps."""
    return {"values": values} if steps == list(range(1, len(steps) + 1)) else {"steps": steps, "values": values}


def write_records(records: Mapping[str, Any], path: Path) -> None:
    """Write records as one compressed JSON file whose bytes depend on its content only."""
    # The order of keys stays: that of tags is the order of the layers
    text = json.dumps(records, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def read_records(path: Path) -> dict[str, Any]:
    """Return the records of a file that `write_records` wrote."""
    found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return found
