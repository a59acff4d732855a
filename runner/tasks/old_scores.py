"""Scores in a checkpoint of an older version, for a run that goes on with the numbers of this one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import numerics
from runner.engine.monitor import Monitor, with_new_tags
from runner.engine.saving.checkpoint import Snapshot


def without_old_losses(snapshot: Snapshot, config: Mapping[str, Any], folder: Path) -> Snapshot:
    """Return a checkpoint without losses of validations if an older version measured them in another way.

    The best score then starts anew if it is a loss. A checkpoint with comparable losses is returned as it is.
    """
    version = numerics.version_in(snapshot.meta, folder)
    if not numerics.check_unchanged(config, version, folder, accept=True, scores_only=True):
        return snapshot
    learner, log = snapshot.state["learner"], snapshot.state["log"]
    changed = {**learner, "patience": {**learner["patience"], **_other_scores(learner["patience"])}}
    if Monitor(config["monitor"]).metric == "loss":
        changed["patience"] |= {"best": {}, "last": {}, "waited": 0}
        if "best" in learner["schedule"]:
            changed["schedule"] = {**learner["schedule"], "best": -math.inf}
    derived = {name: value for name, value in log["derived"].items() if name != "_best/val_loss"}
    return replace(snapshot, state={**snapshot.state, "learner": changed, "log": {**log, "derived": derived}})


def _other_scores(patience: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the best and the last scores without the losses."""
    return {
        at: {tag: value for tag, value in with_new_tags(patience[at]).items() if Monitor(tag).metric != "loss"}
        for at in ("best", "last")
    }
