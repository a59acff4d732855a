"""Symptoms: `(history) -> Finding | None`, each under `@register("symptom")`; importing this package registers all.

numerics.py   steps that are not finite
"""

import importlib
import pkgutil

for _module in pkgutil.walk_packages(__path__, __name__ + "."):
    importlib.import_module(_module.name)
