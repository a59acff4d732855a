"""Histories for the tests of symptoms: made by hand, with the facts of a small run of digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from comparing_runs import changed_config

from runner.doctor import History, Series
from runner.doctor.facts import RunFacts
from runner.status import Status

COUNTS = (119, 121, 118, 123, 121, 121, 121, 120, 116, 120)


def facts(status: Status = Status.DONE, *, steps: int = 570, per_epoch: int = 19, **changes: Any) -> RunFacts:
    """Return the facts of a run of digits; names of fields are theirs, others are changes of the config."""
    own = {name: changes.pop(name) for name in list(changes) if name in RunFacts.__dataclass_fields__}
    given = {
        "config": changed_config(**changes),
        "classes": 10,
        "train_examples": sum(COUNTS),
        "val_examples": 297,
        "class_shares": tuple(count / sum(COUNTS) for count in COUNTS),
    }
    return RunFacts(status=status, steps=steps, steps_per_epoch=per_epoch, **(given | own))


def series(values, steps=None) -> Series:
    """Return a curve of some values, by default at steps 1, 2, ..."""
    found = np.arange(1, len(values) + 1) if steps is None else np.asarray(steps)
    return Series(found.astype(np.int64), np.asarray(values, dtype=float))


def history(facts: RunFacts, siblings: tuple[History, ...] = (), **curves: Any) -> History:
    """Return a history; `train__loss` is the tag `train/loss`, and values may be a Series."""
    found = {tag.replace("__", "/"): each if isinstance(each, Series) else series(each) for tag, each in curves.items()}
    return History(facts, found, siblings)


def write_folder(folder: Path, lines: list[dict[str, Any]], *, text: str | None = None, **changes: Any) -> Path:
    """Write a run folder with logged rows, as a run of digits leaves it; `text` replaces `metrics.jsonl`."""
    folder.mkdir(parents=True)
    status, reason = changes.pop("status", "done"), changes.pop("reason", None)
    steps = changes.pop("done_steps", 57)
    (folder / "config.yaml").write_text(yaml.safe_dump(changed_config(**changes), sort_keys=False))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([f"{k.replace('__', '.')}={v}" for k, v in changes.items()]))
    part = {"listing": "0" * 32, "content": "1" * 32}
    data = {
        "classes": [str(i) for i in range(10)],
        "splits": {
            "train": {"count": sum(COUNTS), "counts": list(COUNTS), **part},
            "val": {"count": 297, "counts": [30] * 9 + [27], **part},
        },
    }
    (folder / "environment.json").write_text(json.dumps({"started": "2026-11-21T10:00:00+00:00", "data": data}))
    has_scores = status in ("done", "stopped")
    scores = {
        "val": {"best": {"accuracy": 0.5, "loss": 1.0, "step": 57}, "last": {"accuracy": 0.5, "loss": 1.0, "step": 57}}
    }
    result = {
        "schema": 2, "status": status, "exit": 5 if status == "diverged" else 0, "reason": reason, "steps": steps,
        "epochs": steps / 19, "seconds": 1.0, "scores": scores if has_scores else {}, "weights": None,
        "test_reads": 0,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    content = "".join(json.dumps(line) + "\n" for line in lines) if text is None else text
    (folder / "metrics.jsonl").write_text(content)
    return folder
