"""What several tests share. One thread: two on a busy machine wait for each other more than they compute."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

if "PYTEST_XDIST_WORKER" not in os.environ:  # which inherits what is set here
    os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))  # its fonts take seconds
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="runner-caches-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
