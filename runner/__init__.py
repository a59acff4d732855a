"""runner: the lab bench for training neural networks."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# Hydra 1.3 takes plugins from the package `hydra_plugins` only; its parts may lie anywhere on the path.
sys.path.append(str(Path(__file__).parent / "_plugins"))
