"""runner: the lab bench for training neural networks.

The Python API is imported when it is used, so that `import runner` takes no time and imports no torch:

    load       the model of a run folder, ready to predict
    Trained    what `load` returns
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.api.load import load as load
    from runner.tasks.trained.trained import Trained as Trained

__version__ = "0.1.0"

# Name in the Python API -> module that defines it
_API = {
    "load": "runner.api.load",
    "Trained": "runner.tasks.trained.trained",
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
    return sorted({*globals(), *_API})
