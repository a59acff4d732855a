"""Run folders for tests, written by runner's own functions without training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from small_runs import default_config

from runner.engine.saving.folder import Result, write_result

STARTED = "2026-11-21T10:00:{:02}+00:00"


def changed_config(**changes: Any) -> dict[str, Any]:
    """Return the default config with changes, `optim__lr=0.1` for a knob."""
    made = copy.deepcopy(default_config())
    for key, value in changes.items():
        *path, last = key.split("__")
        place = made
        for word in path:
            place = place[word]
        place[last] = value
    return made


def write_run(
    folder: Path,
    accuracy: float | None,
    *,
    loss: float | None = None,
    best: float | None = None,
    test: float | None = None,
    status: str = "done",
    reason: str | None = None,
    started: int = 0,
    curve: bool = True,
    schema: int = 2,
    nll: float | None = None,
    **changes: Any,
) -> Path:
    """Write a run folder whose last validation has this accuracy; None: it has no score."""
    folder.mkdir(parents=True)
    made = changed_config(**changes)
    (folder / "config.yaml").write_text(yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    words = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    (folder / "overrides.yaml").write_text(yaml.safe_dump(words))
    environment = {
        "started": STARTED.format(started),
        "git_package": {"commit": "0123456789abcdef", "dirty": False},
        "versions": {"torch": "2.15.0"},
        "device": "cpu (1 threads)",
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    scores: dict[str, Any] = {}
    if accuracy is not None:
        loss = 1 - accuracy if loss is None else loss
        last = {"accuracy": accuracy, "loss": loss, "step": 20}
        top = {"accuracy": best if best is not None else accuracy, "loss": loss, "step": 20}
        for each in (last, top) if nll is not None else ():
            each["nll"] = nll
        scores = {"val": {"best": top, "last": last}}
    if test is not None:
        scores["test"] = {"accuracy": test, "loss": 1.0}
    result = Result(
        schema=schema, status=status, exit=0, reason=reason, steps=20, epochs=2.0, seconds=1.5, scores=scores,
        test_reads=int(test is not None),
    )  # fmt: skip
    write_result(folder, result)
    if curve:
        rows = [logged_row(step, accuracy if accuracy is not None else 0.1) for step in range(1, 21)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder


def logged_row(step: int, accuracy: float) -> dict[str, float]:
    """Return a logged step."""
    found: dict[str, float] = {"step": step, "train/loss": 2 / step, "train/loss_average": 2 / step}
    if step % 5 == 0:
        found |= {"val/accuracy": accuracy * step / 20, "val/loss": 1 - accuracy * step / 20}
    if step in (1, 11):
        found |= {"ratio/log10/_global": -2.0 - step / 11, "ratio/l2/_global": 10 ** (-2.0 - step / 11)}
    if step == 10:
        found |= {"time/step_ms": 2.0, "time/examples_per_second": 1000.0, "time/peak_memory_mb": 300.0}
    return found


def write_sweep(folder: Path, scores: dict[float, list[float | None]], *, gain: float = 0.0, **changes: Any) -> Path:
    """Write a sweep over the learning rate with the last scores of its seeds (None: diverged); the best are larger."""
    for rate, values in scores.items():
        for seed, accuracy in enumerate(values):
            name = f"optim.lr={rate},seed={seed}-{abs(hash((rate, seed))) % 16**8:08x}"
            ended = {} if accuracy is not None else {"status": "diverged", "reason": "diverged at step 3: loss is nan"}
            best = None if accuracy is None else accuracy + gain
            write_run(folder / name, accuracy, best=best, optim__lr=rate, seed=seed, **ended, **changes)
    return folder
