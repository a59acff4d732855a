"""The one read of the test split, after all choices are made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import user_paths
from runner.engine.saving.folder import read_environment
from runner.engine.saving.storage import convert_os_errors, make_folders, write_atomic
from runner.hashes import hash8
from runner.protocol.context import Config, Context
from runner.status import Status

# What is known of the read; that it is there says that the test split was read
_RECORD = "final_test.json"
_SCHEMA = 1
_OVERRIDES: dict[str, Any] = {
    "test": "end",
    "figures": "never",
    "predictions": "never",
    "tracker": [],
    "name": None,
    "keep": "best",
}


def was_read(folder: Path) -> bool:
    """Return True if a protocol has read the test split."""
    return user_paths.is_file(folder / _RECORD)


def read_test_once(context: Context, handoff: Mapping[str, Any]) -> str:
    """Train the recipe and score it on the test split, unless that was done before; return a line about it.

    Args:
        context: Its config is the user's, and its folder that of the protocol.
        handoff: The overrides that the steps found.
    """
    changes = {key: value for key, value in handoff.items() if key not in context.pinned}
    config = context.vary(context.config, {**changes, "task": "train", **_OVERRIDES})
    if was_read(context.folder):
        return _in_words(_read(context.folder / _RECORD), config)
    if problem := context.budget.refusal(1):
        return f"The test split was not read: the training {problem} (task.budget)."
    folder = context.folder / "08_final_test"
    make_folders(folder)
    result = replace(context, folder=folder / f"runs-{hash8(config)}").train([config])[0]
    scores = (getattr(result, "scores", None) or {}).get("test")
    if not Status(result.status).complete or scores is None:
        return f"The test split was not read: the training ended as {result.status}."
    record = {
        "schema": _SCHEMA,
        "config": hash8(config),
        "run": "/".join(result.folder.parts[-3:]),
        "accuracy": scores["accuracy"],
        "loss": scores.get("loss"),
        "examples": _count(result.folder),
        "reads": 1,
    }
    write_atomic(context.folder / _RECORD, json.dumps(record, indent=1).encode() + b"\n")
    return _in_words(record, config)


def _read(path: Path) -> dict[str, Any]:
    """Return what is known of the read."""
    with convert_os_errors(path):
        found: dict[str, Any] = json.loads(Path(user_paths.full(path)).read_bytes())
    return found


def _count(folder: Path) -> int | None:
    """Return the number of test examples of a run, None if its environment does not say it."""
    with suppress(KeyError, TypeError):
        return sum(map(int, read_environment(folder)["data"]["examples"]["test"]))
    return None


def _in_words(record: Mapping[str, Any], config: Config) -> str:
    """Return the score with its standard error, and whether it is that of this recipe."""
    accuracy, count = float(record["accuracy"]), record["examples"]
    error = (
        f" +- {math.sqrt(accuracy * (1 - accuracy) / count):.4f} (binomial standard error, n={count})" if count else ""
    )
    line = f"The test split was read once: accuracy {accuracy:.4f}{error}, {record['run']}."
    if record["config"] != hash8(config):
        line += " That was another recipe: it is not read again."
    return line
