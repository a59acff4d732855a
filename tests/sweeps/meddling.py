"""Tasks that write to descriptors which are not theirs, and that show which ones they have."""

import contextlib
import json
import os
import subprocess
from pathlib import Path

from runner.registry import register

LINES = (
    *(b"rubbish", b"\n", b'{"did": "end"}\n', b"[1]\n", b'{"code": -9999}\n', b'{"did": "load", "gpus": 3.5}\n'),
    b"\xff\x00\n",
)


@register("task")
def rubbish(job):
    """Write rubbish to every descriptor, here and in a child."""
    (Path(job.folder) / "begun").touch()
    child = os.fork()
    for descriptor in range(3, 256):
        for line in LINES:
            with contextlib.suppress(OSError):
                os.write(descriptor, line)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return 0


def shown(pid):
    """Return what each descriptor of a process is, by number."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found[int(path.name)] = str(path.readlink())
    return found


@register("task")
def descriptors(job):
    """Write down which descriptors this process has, a forked one, and a started one that closes none."""
    ours, theirs = os.pipe()
    if not os.fork():
        os.write(theirs, json.dumps(shown("self")).encode())
        os._exit(0)
    os.wait()
    forked = {key: each for key, each in json.loads(os.read(ours, 1 << 16)).items() if int(key) not in (ours, theirs)}
    os.close(ours)
    os.close(theirs)
    listed = ["sh", "-c", "for each in /proc/self/fd/*; do readlink $each; done"]
    started = subprocess.run(listed, capture_output=True, text=True, close_fds=False).stdout.split("\n")
    found = {"own": list(shown("self").values()), "forked": list(forked.values()), "started": started}
    (Path(job.folder) / "found").write_text(json.dumps(found))
    return 0
