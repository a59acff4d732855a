"""Trackers: the numbers of `metrics.jsonl`, sent to another program while a run trains.

TensorBoard's event file and `metrics.jsonl` are always written and are no trackers: a run resumes from them. A tracker
changes no number of a run, and no failure of it ends one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from runner.errors import ConfigError, brief, escaped
from runner.registry import register
from runner.schema import Uri
from runner.trackers.contract import Tracker
from runner.trackers.csv_file import CsvFile
from runner.trackers.in_process import InProcess
from runner.user_paths import absolute, is_dir

# Stores of MLflow that are files of this machine; all others need a connection
_LOCAL = ("sqlite:",)
_FILE = "sqlite:///"


@register("tracker")
def csv() -> Tracker:
    """Return a tracker that writes `metrics.csv` into the run folder.

    The columns are `step` and the tags in alphabetical order; a cell without a number is empty.
    `pandas.read_csv(path, index_col="step")` reads it.
    """
    return CsvFile()


@register("tracker")
def mlflow(outputs: str, *, mode: Literal["offline", "online"], uri: Uri | None, experiment: str) -> Tracker:
    """Return a tracker that logs to MLflow: the config as parameters, each number as a metric at its step.

    Needs `pip install 'runner[trackers]'`. Offline it takes SQLite only. MLflow reads the user and password of a server
    from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; a URI with a password is refused.
    """
    _require("mlflow", "mlflow-skinny sqlalchemy alembic")
    if uri is not None and mode == "offline" and not uri.startswith(_LOCAL):
        if uri.startswith("file:"):
            raise ConfigError(
                f"tracker.mlflow.uri: got {uri!r}; MLflow no longer supports it, expected sqlite:///<file>"
            )
        raise ConfigError(f"tracker.mlflow.uri: got {uri!r}; requires tracker.mlflow.mode=online, or sqlite:///<file>")
    store = _with_full_path(uri) if uri else f"{_FILE}{absolute(Path(outputs) / 'mlflow.db')}"
    return InProcess("mlflow", {"uri": store, "experiment": experiment}, {"MLFLOW_DISABLE_TELEMETRY": "true"})


def _with_full_path(uri: str) -> str:
    """Return a URI with the path of a store in full; ConfigError if its folder is missing."""
    if not uri.startswith(_FILE):
        return uri
    path, *options = uri.removeprefix(_FILE).split("?", 1)
    folder = Path(path).parent
    if not is_dir(folder, key="tracker.mlflow.uri"):
        raise ConfigError(
            f"tracker.mlflow.uri: got {uri!r}; there is no folder {brief(escaped(str(folder)))}, create it"
        )
    return "?".join([f"{_FILE}{absolute(path)}", *options])


@register("tracker")
def wandb(*, mode: Literal["offline", "online"], project: str) -> Tracker:
    """Return a tracker that logs to Weights & Biases, by default into files of the run folder.

    Needs `pip install 'runner[trackers]'`. Only the config and the rows are logged: no console, code, packages,
    hardware or environment variables.
    """
    _require("wandb", "wandb")
    return InProcess("wandb", {"project": project, "mode": mode}, {"WANDB_ERROR_REPORTING": "false"})


def _require(module: str, packages: str) -> None:
    """Raise ConfigError unless a module is installed."""
    if find_spec(module) is None:
        raise ConfigError(f"tracker={module}: {module} is not installed; pip install {packages}")
