"""The tracker `mlflow`, in a process of its own (MLflow's client, no global state); imports no torch."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from runner.engine.saving import storage
from runner.trackers.earlier_process import wait_for_earlier_process
from runner.trackers.tags import flattened, plain_tag
from runner.user_paths import exists, full

# Limits of one request (MLflow's REST API)
_METRICS, _PARAMS, _PARAM_LENGTH, _TAG_LENGTH = 1000, 100, 6000, 5000
_FILE = "sqlite:///"
_KEY = "runner.id"
_STATUSES = {"done": "FINISHED", "stopped": "FINISHED", "pruned": "FINISHED", "interrupted": "KILLED"}


def make_mlflow(*, uri: str, experiment: str) -> _MlflowRun:
    """Return the tracker for a store; one in a file is created first, by one process at a time."""
    if uri.startswith(_FILE):
        path = Path(uri.removeprefix(_FILE).partition("?")[0])
        with _locked(path.parent):
            if not exists(path):
                _create_store(path)
    return _MlflowRun(MlflowClient(tracking_uri=uri), experiment)


def _create_store(path: Path) -> None:
    """Create a store in a new file and then give it its name: tables half created, as by a kill, are never repaired."""
    new = path.with_name(f".{path.name}.new")
    for leftover in (new, new.with_name(f"{new.name}-journal")):
        storage.remove(leftover)
    # The first request creates the tables
    MlflowClient(tracking_uri=f"{_FILE}{new}").search_experiments(max_results=1)
    Path(full(new)).replace(full(path))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder: two processes that create tables in one new file there would destroy them."""
    file = os.open(full(folder), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


class _MlflowRun:
    """A run in an MLflow store."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client, self._experiment = client, experiment
        self._id = ""
        self._step = 0
        # The first rows after a crash may be in the store already
        self._may_repeat = False

    def start(
        self, *, folder: str, name: str, group: str, sweep: str | None, config: Mapping[str, Any], key: str
    ) -> None:
        """Create a run with the config as its parameters, or continue the run of an earlier session."""
        wait_for_earlier_process(Path(folder))
        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
        if found:
            self._id, self._may_repeat = str(found[0].info.run_id), True
            self._client.update_run(self._id, status="RUNNING")
            if not found[0].data.params:
                self._log_config(config)
            return
        tags = {_KEY: key, "runner.folder": folder, "runner.group": group, **({"runner.sweep": sweep} if sweep else {})}
        made = self._client.create_run(experiment, run_name=name, tags=tags)
        self._id = str(made.info.run_id)
        self._log_config(config)

    def log(self, *, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log the numbers of rows as metrics."""
        now = int(time.time() * 1000)
        metrics = [Metric(plain_tag(tag), float(v), now, step) for step, row in rows for tag, v in row.items()]
        self._log(metrics)
        self._step = rows[-1][0]

    def finish(self, *, status: str, scores: Mapping[str, float]) -> None:
        """Log the final scores as metrics of the last step, and end the run."""
        now, self._may_repeat = int(time.time() * 1000), True
        self._log([Metric(plain_tag(tag), float(value), now, self._step) for tag, value in scores.items()])
        self._client.log_batch(self._id, tags=[RunTag("runner.status", status[:_TAG_LENGTH])])
        self._client.set_terminated(self._id, _STATUSES.get(status, "FAILED"))

    def close(self) -> None:
        """Do nothing: each request is complete when it returns."""

    def _log_config(self, config: Mapping[str, Any]) -> None:
        """Log the values of a config as parameters, by dotted keys."""
        params = [Param(plain_tag(key), str(value)[:_PARAM_LENGTH]) for key, value in flattened(config).items()]
        for i in range(0, len(params), _PARAMS):
            self._client.log_batch(self._id, params=params[i : i + _PARAMS])

    def _experiment_id(self) -> str:
        """Return the id of the experiment, which another process may be creating now."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self._experiment))
            except Exception:
                found = self._client.get_experiment_by_name(self._experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log(self, metrics: Sequence[Metric]) -> None:
        """Log metrics, in requests of at most as many as MLflow takes."""
        if self._may_repeat:
            metrics, self._may_repeat = list(self._missing(metrics)), False
        for i in range(0, len(metrics), _METRICS):
            self._client.log_batch(self._id, metrics=metrics[i : i + _METRICS])

    def _missing(self, metrics: Sequence[Metric]) -> Iterator[Metric]:
        """Yield the metrics that the store does not have."""
        stored = {key: self._steps(key) for key in {metric.key for metric in metrics}}
        yield from (metric for metric in metrics if metric.step not in stored[metric.key])

    def _steps(self, key: str) -> set[int]:
        """Return the steps at which the store has a metric."""
        return {metric.step for metric in self._client.get_metric_history(self._id, key)}
