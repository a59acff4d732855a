"""Processes as the kernel shows them: which one is meant, what one has started, and how all of that ends.

Linux shows them below `/proc`. Elsewhere a process knows its process group only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

# <sys/prctl.h>
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37
# Seconds that killed processes have to end; only the kernel (a lost network disk) can hold them longer
_PATIENCE = 5.0
_PROC = Path("/proc")
# States of a process that has ended
_OVER = ("Z", "X", "")
# Positions in /proc/<pid>/stat, after the name
_PARENT, _START = 1, 19


def state(pid: int) -> str:
    """Return the state of a process as one letter (`T`: stopped, `Z`: ended), empty if there is none."""
    return next(iter(_stat(pid)), "")


def is_alive(pid: int) -> bool:
    """Return True if a process has not ended; where the system does not show its state, if there is one."""
    if _PROC.is_dir():
        return state(pid) not in _OVER
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_of(pid: int) -> str:
    """Return when a process started, in ticks since the machine did: two processes never share pid and start.

    Empty if the system does not say it.
    """
    fields = _stat(pid)
    return fields[_START] if len(fields) > _START else ""


def _stat(pid: int) -> list[str]:
    """Return the fields of a process after its name, which may contain anything; empty if there is no such process."""
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def children(pid: int) -> set[int]:
    """Return the children of a process, ended ones included; empty if the system does not show them."""
    if not Path("/proc/thread-self/children").exists():
        # A kernel without this file
        return {each for each in _all() if _stat(each)[_PARENT : _PARENT + 1] == [str(pid)]}
    found: set[int] = set()
    # The process or one of its threads may end meanwhile
    with contextlib.suppress(OSError):
        for thread in os.listdir(_PROC / str(pid) / "task"):  # noqa: PTH208  (half the time of `iterdir`)
            with contextlib.suppress(OSError):
                found |= set(map(int, (_PROC / str(pid) / "task" / thread / "children").read_text().split()))
    return found


def _all() -> Iterator[int]:
    """Yield the pids of all processes."""
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir(_PROC) if name.isdecimal())  # noqa: PTH208


def lock_holders(file: int) -> list[int]:
    """Return the processes that hold the lock (flock) of an opened file, of those that this user may look at."""
    wanted = os.fstat(file)
    return sorted(pid for pid in _all() if any(_is_locked(pid, each) for each in _descriptors(pid, wanted)))


def _descriptors(pid: int, wanted: os.stat_result) -> Iterator[str]:
    """Yield the descriptors by which a process has opened a file."""
    folder = _PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.path.samestat((folder / name).stat(), wanted):
                    yield name


def _is_locked(pid: int, descriptor: str) -> bool:
    try:
        return "FLOCK" in (_PROC / str(pid) / "fdinfo" / descriptor).read_text()
    except OSError:
        return False


def _living_descendants(keep: Collection[int] = ()) -> set[int]:
    """Return the living processes that this one or its descendants started, without those below `keep`."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        new = children(waiting.pop()) - found - set(keep)
        found |= new
        waiting += new
    return {pid for pid in found if is_alive(pid)}


def kill_group(group: int, sent: signal.Signals) -> None:
    """Send a signal to all processes of a process group, if there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, sent)


def end_descendants(keep: Collection[int] = (), spare: Callable[[int], bool] = lambda pid: False) -> None:
    """Kill all processes that this one or its descendants started, and wait for their end.

    None escapes if this process adopts orphans (`adopt_orphans`). Those below `keep` stay, and those that `spare`
    names, but not what these started.
    """
    _end(lambda: {pid for pid in _living_descendants(keep) if not spare(pid)})


def is_python_helper(pid: int) -> bool:
    """Return True for a process of Python's multiprocessing: its fork server, or its tracker of shared memory."""
    with contextlib.suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        return any(word.startswith(b"from multiprocessing.") and b" import main" in word for word in words)
    return False


def claim_process() -> None:
    """Declare that this process is runner's own, so that it started or adopted nothing for other programs."""
    global _is_claimed
    _is_claimed = True


def end_adopted(mark: str, keep: Collection[int]) -> None:
    """Kill the processes that this one adopted, and what they started, except `keep`.

    They are children in another session that have a mark in their first environment. In a process of runner's own, a
    missing mark does not protect them: a trial may have started them with an empty environment.
    """
    own = os.getsid(0)

    def adopted() -> set[int]:
        now = children(os.getpid()) - set(keep)
        others = {pid for pid in now if _session(pid) == own or not (_is_claimed or _is_marked(pid, mark))}
        return _living_descendants({*keep, *others})

    _end(adopted)


def end_marked(mark: str, keep: Collection[int]) -> None:
    """Kill the processes that have a mark in their first environment: where nobody adopts orphans."""
    _end(lambda: {pid for pid in _all() if pid not in keep and _is_marked(pid, mark) and is_alive(pid)})


def _end(find: Callable[[], set[int]]) -> None:
    """Kill the processes that a search finds until it finds none twice."""
    until, clean = time.monotonic() + _PATIENCE, 0
    # A process that moves to a new parent may be missed once
    while clean < 2 and time.monotonic() < until:
        found = find()
        for pid in found:
            # Another user's process cannot be killed
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        clean = 0 if found else clean + 1
        if found:
            time.sleep(0.001)


def _session(pid: int) -> int:
    """Return the session of a process, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _is_marked(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends in any way (Linux only)."""
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) and os.getppid() != parent:
        # The parent ended before the call
        os._exit(1)


def wake_with_parent() -> None:
    """Have the kernel continue this process, if it is stopped, when its parent ends in any way (Linux only)."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT))


def adopt_orphans(adopt: bool = True) -> bool:
    """Make this process the parent of orphans among its descendants, and return True if the system can (Linux).

    Else the first process of the machine becomes their parent, and nobody knows who started them.
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def adopts_orphans() -> bool:
    """Return True if this process is the parent of orphans among its descendants."""
    if sys.platform != "linux":
        return False
    import ctypes

    answer = ctypes.c_int(0)
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def _prctl(option: int, argument: int) -> bool:
    """Call prctl of the C library, and return True if it succeeded."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        call = ctypes.CDLL(None).prctl
    except (AttributeError, OSError):
        return False
    zero = ctypes.c_ulong(0)
    return bool(call(option, ctypes.c_ulong(argument), zero, zero, zero) == 0)


# True in `python -m runner`, False where a program uses runner as a library
_is_claimed = False
