"""The processes that run a sweep's trials, as the sweep sees them: a fork server, or one process per GPU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner import user_paths
from runner.engine import processes
from runner.errors import TrialsFailed
from runner.sweeps.channel import BadMessage, Channel, Closed, Message
from runner.sweeps.launcher import LauncherSettings
from runner.sweeps.outcome import describe_exit
from runner.tasks.job import Job

START = (
    "import ast, sys; sys.path[:] = ast.literal_eval(sys.argv[1]); "
    "from runner.sweeps.server import main; main(int(sys.argv[2]))"
)
# malloc uses large pages where possible, so that each fork copies a third less.
_LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Seconds that a process has to end after its channel is closed
_PATIENCE = 5.0
# Seconds without an answer after which a process is replaced; the time in which this process was stopped is not counted
SILENCE = 60.0
MARK = "RUNNER_TRIALS"
# The numbers in each kind of message, by what the process did
_FIELDS = {"load": ("gpus",), "start": ("number", "pid"), "end": ("number", "code"), "answer": ()}
# The sweep fails after this many fork servers ended without a trial ending in between
_DEATHS = 3


class WorkerGroup:
    """Starts processes, replaces those that end, and gives up if they keep ending."""

    def __init__(self, settings: LauncherSettings, like: Job, entry: str) -> None:
        self._settings, self._like, self._entry = settings, like.config, entry
        self._seats = settings.on_cores(like)
        self.workers: list[Worker] = []
        # Orphans of trials become children of this process where the processes below it were killed
        self._adopted_before, self._children_before = processes.adopts_orphans(), processes.children(os.getpid())
        processes.adopt_orphans()
        self.ready: set[Worker] = set()
        self._trials = self._deaths = 0
        # Exit code of the last process that ended
        self._last = 0

    def start(self, trials: int, measure: Sequence[Mapping[str, Any]] = ()) -> None:
        """Start the fork server unless it runs, for so many trials or more; its answer has the sizes of some runs."""
        self._trials = trials
        if not self.workers:
            self._add(Worker(seats=self._seats, inline=False), list(map(dict, measure)))

    def loaded(self, worker: Worker, gpus: int) -> None:
        """Record that a process is ready; if it found GPUs, replace it by one process per GPU."""
        self.ready.add(worker)
        if not gpus or worker.inline:
            return
        self._remove(worker)
        # True if one GPU is chosen, as in cuda:1
        one = ":" in self._like["device"]
        for number in range(self._settings.workers or (1 if one else gpus)):
            environment = {} if one else gpu_environment(number, gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
            self._add(Worker(seats=1, inline=True, environment=environment))

    @property
    def seats(self) -> int:
        """How many trials run at the same time."""
        return sum(worker.seats for worker in self.workers) or self._seats

    def trial_ended(self) -> None:
        """Record that a trial ended, so that the processes work."""
        self._deaths = 0

    def worker_ended(self, worker: Worker) -> int:
        """Remove a process that ended, and return its exit code."""
        self._deaths += not (worker.inline and worker in self.ready)
        self._last = self._remove(worker)
        return self._last

    def replace(self, worker: Worker) -> None:
        """Start another process in the place of one that ended; a fork server is started by the next `start`.

        Raises TrialsFailed if too many ended.
        """
        if self._deaths >= _DEATHS:
            raise TrialsFailed(f"the process that trials come from ended {_DEATHS} times ({describe_exit(self._last)})")
        if worker.inline:
            self._add(worker.successor())

    def silent(self, seconds: float) -> list[Worker]:
        """Count seconds of waiting, and return the processes that have not answered for too long: stopped ones."""
        return [worker for worker in self.workers if worker.is_silent(seconds, loaded=worker in self.ready)]

    def close(self) -> None:
        """End all processes immediately, with all that trials started."""
        while self.workers:
            self._remove(self.workers[0])
        self.ready = set()
        processes.adopt_orphans(self._adopted_before)

    def _add(self, worker: Worker, measure: Sequence[Mapping[str, Any]] = ()) -> None:
        self.workers.append(worker)
        like = {key: self._like[key] for key in ("plugins", "data", "device")}
        worker.load(trials=0 if worker.inline else self._trials, entry=self._entry, measure=measure, **like)

    def _remove(self, worker: Worker) -> int:
        self.workers.remove(worker)
        self.ready.discard(worker)
        code = worker.close()
        keep = {*self._children_before, *(other.pid for other in self.workers)}
        processes.end_adopted(worker.mark, keep)
        if not processes.adopts_orphans():
            processes.end_marked(worker.mark, keep)
        return code


class Worker:
    """A process that runs trials: a fork server runs several at the same time, the process of a GPU one.

    It runs until `close`, and ends when this process does: the channel between them is closed then.
    """

    def __init__(self, *, seats: int, inline: bool, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.seats, self.inline, self._environment = seats, inline, dict(environment or {})
        # Marks the processes of trials, for systems where nobody adopts orphans
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self._silent = self._unasked = 0.0
        # number of a trial -> its process group
        self.groups: dict[int, int] = {}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                START,
                repr([path or user_paths.full(".") for path in sys.path]),
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=user_paths.start_folder(),
            env={**_LARGE_PAGES, **os.environ, **self._environment, MARK: self.mark.partition("=")[2]},
            # The terminal sends Ctrl-C to all processes of a session, but the sweep decides which of them end.
            start_new_session=True,
        )
        theirs.close()
        self._channel = Channel(ours)
        self._channel.limit_waiting(SILENCE)

    @property
    def pid(self) -> int:
        """Return the process."""
        return self._process.pid

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return self._channel.fileno()

    def load(self, **message: Any) -> None:
        """Ask it to load what trials need; it answers with the number of GPUs."""
        self._send({"do": "load", "argv": sys.argv, "inline": self.inline, **message})

    def run(self, number: int, message: Message) -> None:
        """Ask it to run a trial."""
        self._send({"do": "run", "number": number, **message})

    def kill(self, number: int, sent: signal.Signals) -> None:
        """Send a signal to a trial and all processes that it started."""
        if self.inline:
            # The pid cannot be reused before we wait for the process
            processes.kill_group(self._process.pid, sent)
        else:
            self._send({"do": "kill", "number": number, "signal": int(sent)})

    def _send(self, message: Message) -> None:
        # Who waits for messages of the process learns that it ended
        with contextlib.suppress(Closed):
            self._channel.send(message)

    def receive(self) -> Iterator[Message]:
        """Yield the messages of the process.

        Raises Closed if it has ended, BadMessage for what only other code than runner's sends: a plugin's, in the
        process of a GPU.
        """
        for message in self._channel.receive():
            self._silent = 0.0
            _check_message(message)
            if message["did"] == "start":
                self.groups[message["number"]] = message["pid"]
            elif message["did"] == "end":
                self.groups.pop(message["number"], None)
            yield message

    def is_silent(self, seconds: float, *, loaded: bool) -> bool:
        """Count seconds of waiting; return True if the process has not answered for too long.

        A fork server answers at any time. The process of a GPU cannot, but while it runs no trial, its state tells. A
        trial that is stopped is a matter of its time limit.
        """
        self._silent, self._unasked = self._silent + seconds, self._unasked + seconds
        if self.inline and (loaded or not self._is_stopped()):
            self._silent = 0.0
        elif not self.inline and self._unasked > SILENCE / 8:
            self._unasked = 0.0
            self._send({"do": "ping"})
        return self._silent > SILENCE

    def _is_stopped(self) -> bool:
        return any(processes.state(pid) == "T" for pid in (self.pid, *processes.children(self.pid)))

    def successor(self) -> Worker:
        """Return a new process like this one."""
        return Worker(seats=self.seats, inline=self.inline, environment=self._environment)

    def close(self) -> int:
        """End the process and its trials; return its exit code, or minus the number of the signal that ended it."""
        self._channel.close()
        # A fork server ends its trials first
        try:
            return self._process.wait(_PATIENCE if self.groups and not self.inline else 0)
        except subprocess.TimeoutExpired:
            processes.kill_group(self._process.pid, signal.SIGKILL)
            return self._process.wait()
        finally:
            # A killed server leaves its trials behind
            for group in self.groups.values():
                processes.kill_group(group, signal.SIGKILL)


def _check_message(message: Message) -> None:
    """Raise BadMessage unless a message has the fields of its kind."""
    wanted = _FIELDS.get(str(message.get("did")))
    if wanted is None or any(type(message.get(name)) is not int for name in wanted) or message.get("pid", 2) < 2:
        raise BadMessage


def gpu_environment(worker: int, gpus: int, visible: str | None) -> dict[str, str]:
    """Return the environment variables that give a worker one GPU; workers take the GPUs in turn."""
    names = visible.split(",") if visible else [str(number) for number in range(gpus)]
    return {"CUDA_VISIBLE_DEVICES": names[worker % gpus]}
