"""A thousand small runs in one process, one in ten failing; prints the growth of the process as JSON.

`python tests/soak.py [runs] [warm-up]`
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from runner.__main__ import main

RUN = (
    *("data=synthetic", "data.train=128", "data.val=64", "data.test=64", "model=mlp", "model.hidden=[4]", "augment=[]"),
    *("probe=[]", "figures=never", "steps=2", "checkpoint_every=1steps"),
)
FAILING = {
    5: ("norm=none", "optim.lr=1e30", "loss=mse", "steps=6"),  # diverges
    2: ("scheduler.warmup=9steps",),
    7: ("data=imagefolder", "data.root=nowhere"),
    4: ("hydra.run.dir=file/below",),
}  # exit code: words


def resources_in_use() -> dict[str, float]:
    """Return the resources of this process: MiB of memory, open files, threads, children, temporary files, tensors."""
    gc.collect()
    own = Path("/proc/self")
    pages = int((own / "statm").read_text().split()[1])
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(os.listdir(own / "fd")),  # noqa: PTH208
        "threads": threading.active_count() + len(os.listdir(own / "task")),  # noqa: PTH208
        "children": len((own / "task" / str(os.getpid()) / "children").read_text().split()),
        "temporary": len(os.listdir(tempfile.gettempdir())) + len(os.listdir("/dev/shm")),  # noqa: PTH208
        "tensors": sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()),
    }


def one_run(number: int) -> None:
    """Make one run, every tenth of which fails."""
    code, extra = 0, ()
    if number % 10 == 9:
        code, extra = list(FAILING.items())[number // 10 % len(FAILING)]
    words = {word.partition("=")[0]: word for word in (*RUN, f"seed={number}", "hydra.run.dir=run", *extra)}
    if code == 7:
        words = {key: word for key, word in words.items() if not key.startswith("data.") or key == "data.root"}
    printed = main(list(words.values()))
    assert printed == code, f"run {number} ended with {printed}"
    shutil.rmtree("run", ignore_errors=True)


def soak(runs: int, warm_up: int) -> dict[str, object]:
    """Make runs, and return what grew after the warm-up and how long a run took at its end and at the end."""
    start, times = {}, []
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):  # noqa: PTH123
        for number in range(runs):
            if number == warm_up:
                start = resources_in_use()
            began = time.process_time()
            one_run(number)
            times.append(time.process_time() - began)
    grown = {name: round(now - start[name], 2) for name, now in resources_in_use().items()}
    first, last = sorted(times[warm_up : warm_up + 50]), sorted(times[-50:])
    return {
        "runs": runs,
        "failing": runs // 10,
        "warm_up": warm_up,
        "grown": grown,
        "seconds": {"first": first[len(first) // 2], "last": last[len(last) // 2]},
    }


if __name__ == "__main__":
    count, warm = [*(int(word) for word in sys.argv[1:]), *(1000, 100)[len(sys.argv) - 1 :]]
    sys.stderr.flush()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would be waited for, 50 times a run
    with tempfile.TemporaryDirectory(dir=memory) as place:
        os.chdir(place)
        Path("file").touch()
        os.environ["TMPDIR"] = place
        tempfile.tempdir = place
        print(json.dumps(soak(count, warm)))
        os.chdir("/")
