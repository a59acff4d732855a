"""runner: the lab bench for training neural networks.

The Python API is imported when it is used, so that `import runner` takes no time and imports no torch:

    train      train a model; returns a `Result`
    sweep      run a sweep; returns a list of `Result`
    run        run any other task, such as `task=compare`
    compose    the checked config of a command line
    result     how the run in a folder stands: `Result`, with `Curve` and `Figure`
    study      the Optuna study of a search, also as a database for Optuna's dashboard
    load       the model of a run folder, ready to predict
    Trained    what `load` returns; its `predict` returns `Predictions`
    register   register a component of your own

Errors are `RunnerError`s (`ConfigError`, `Diverged`, ...); Ctrl-C raises `Interrupted`. `Status` says how a run ended.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.api.calls import compose as compose
    from runner.api.calls import result as result
    from runner.api.calls import run as run
    from runner.api.calls import sweep as sweep
    from runner.api.calls import train as train
    from runner.api.load import load as load
    from runner.api.result import Curve as Curve
    from runner.api.result import Figure as Figure
    from runner.api.result import Result as Result
    from runner.api.study import study as study
    from runner.engine.interruption import Interrupted as Interrupted
    from runner.errors import CheckpointError as CheckpointError
    from runner.errors import ConfigError as ConfigError
    from runner.errors import DataError as DataError
    from runner.errors import Diverged as Diverged
    from runner.errors import GateFailed as GateFailed
    from runner.errors import Locked as Locked
    from runner.errors import PluginError as PluginError
    from runner.errors import RunnerError as RunnerError
    from runner.errors import StorageError as StorageError
    from runner.errors import TrialsFailed as TrialsFailed
    from runner.registry import register as register
    from runner.status import Status as Status
    from runner.tasks.trained.trained import Predictions as Predictions
    from runner.tasks.trained.trained import Trained as Trained

__version__ = "0.1.0"

# Name in the Python API -> module that defines it
_API = {
    "train": "runner.api.calls",
    "sweep": "runner.api.calls",
    "run": "runner.api.calls",
    "compose": "runner.api.calls",
    "result": "runner.api.calls",
    "Result": "runner.api.result",
    "Curve": "runner.api.result",
    "Figure": "runner.api.result",
    "study": "runner.api.study",
    "load": "runner.api.load",
    "Trained": "runner.tasks.trained.trained",
    "Predictions": "runner.tasks.trained.trained",
    "register": "runner.registry",
    "Status": "runner.status",
    "Interrupted": "runner.engine.interruption",
    "RunnerError": "runner.errors",
    "CheckpointError": "runner.errors",
    "ConfigError": "runner.errors",
    "DataError": "runner.errors",
    "Diverged": "runner.errors",
    "GateFailed": "runner.errors",
    "Locked": "runner.errors",
    "PluginError": "runner.errors",
    "StorageError": "runner.errors",
    "TrialsFailed": "runner.errors",
}


def __getattr__(name: str) -> Any:
    """Return a name of the Python API, imported at its first use."""
    if name not in _API:
        raise AttributeError(f"module 'runner' has no attribute '{name}'")
    found = getattr(importlib.import_module(_API[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names of the module, those of the Python API among them."""
    return sorted({*globals(), *_API} - {"Any", "TYPE_CHECKING", "importlib"})
