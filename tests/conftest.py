"""Settings of all tests. torch uses one thread: on a busy machine two threads mostly wait for each other."""

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

# `nohup` and `&` start a program with signals ignored, and what is ignored stays so in every child. Tests that send
# such a signal need the disposition of a program in the foreground.
for _number, _default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _default)

if "PYTEST_XDIST_WORKER" not in os.environ:  # which inherits what is set here
    os.environ.setdefault("MPLCONFIGDIR", str(Path("~/.cache/matplotlib").expanduser()))  # its fonts take seconds
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="runner-caches-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
