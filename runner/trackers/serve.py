"""The process of a tracker: carries out the requests of `runner.trackers.in_process`; imports no torch."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

# Seconds that the process may take to end after the run's
_PATIENCE = 20.0


def serve(kind: str, knobs: Mapping[str, Any], run: int) -> None:
    """Answer the requests of a run's process until the input ends; an error is the answer to its request.

    What the library prints does not get between the answers: they go to a descriptor of their own.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    # Nothing may ask the user here
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    threading.Thread(target=_outlive_run, args=[run], daemon=True).start()
    tracker: Any = None
    for line in requests:
        try:
            request, values = json.loads(line)
            tracker = tracker or _make(kind, knobs)
            answer = {"answer": getattr(tracker, request)(**values)}
        except (Exception, SystemExit) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    if tracker:
        tracker.close()
    sys.exit(0)


def _make(kind: str, knobs: Mapping[str, Any]) -> Any:
    """Return a tracker; its library is imported here."""
    if kind == "mlflow":
        from runner.trackers.mlflow_run import make_mlflow

        return make_mlflow(**knobs)
    from runner.trackers.wandb_run import make_wandb

    return make_wandb(**knobs)


def _outlive_run(parent: int) -> None:
    """End this process some time after its parent, whatever request it is waiting for."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(_PATIENCE)
    os._exit(1)
