"""A cluster of Ray: connect to one that runs, or start one on this machine that ends with this command."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from runner.engine.interruption import STOPPING, blocked
from runner.engine.world import cores
from runner.errors import ConfigError, TrialsFailed, describe
from runner.sweeps.launcher import RaySettings

KEY = "hydra.launcher.address"
# Seconds in which a cluster must answer
_ANSWERS = 30.0
# Seconds for which the number of places in a cluster is believed
_BELIEVED = 5.0
# Trials return nothing through Ray; it takes no less
_STORE_BYTES = 80 << 20
_ADDRESS = re.compile(r"auto|[A-Za-z0-9._-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}")
# No statistics are sent, and a task without a GPU keeps its environment
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_PROBE = (
    "import sys, ray; "
    "ray.init(address=sys.argv[1], include_dashboard=False, log_to_driver=False, logging_level='ERROR'); ray.shutdown()"
)


class Cluster:
    """A connection to Ray; `close` ends it, and the cluster where this process started it."""

    def __init__(self, settings: RaySettings) -> None:
        """Connect or start; raises ConfigError if Ray is missing, the cluster does not answer, or is too small."""
        os.environ.update(_QUIET)
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            import ray
        except ImportError:
            raise ConfigError("hydra/launcher: 'ray' is not installed: pip install 'ray>=2.9'") from None
        self.ray: Any = ray
        self._settings, self._slots, self._asked = settings, 0, -math.inf
        if settings.address is not None:
            _probe(settings.address)
        with _own_signals():
            self._connect()
        if settings.address is None and not self.slots():
            self.close()
            gpus, cpus = settings.num_gpus, settings.num_cpus
            raise ConfigError(f"hydra.launcher.resources: got {cpus:g} CPUs and {gpus:g} GPUs; this machine has less")

    def _connect(self) -> None:
        """Connect to the cluster of the address, or start one that listens on this machine only."""
        asked = self._settings
        more: dict[str, Any] = {"address": asked.address}
        if asked.address is None:
            wanted = math.ceil((asked.workers or 0) * asked.num_cpus)
            more = {"num_cpus": max(cores(), wanted), "object_store_memory": _STORE_BYTES}
            # `local`: not the cluster that RAY_ADDRESS names
            more |= {"address": "local", "_node_ip_address": "127.0.0.1"}
        try:
            with _loopback(only=asked.address is None):
                self.ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", **more)
        except Exception as error:
            raise TrialsFailed(f"hydra/launcher: Ray does not start: {describe(error)}") from error

    def slots(self) -> int:
        """Return how many trials the nodes that live have room for."""
        if time.monotonic() - self._asked > _BELIEVED:
            nodes = [each["Resources"] for each in self.ray.nodes() if each["Alive"]]
            self._slots = sum(map(self._room, nodes))
            self._asked = time.monotonic()
        return self._slots

    def _room(self, has: dict[str, float]) -> int:
        """Return how many trials fit on a node."""
        asked = {"CPU": self._settings.num_cpus, "GPU": self._settings.num_gpus}
        rooms = [has.get(name, 0.0) / amount for name, amount in asked.items() if amount]
        # A trial that asks for nothing still computes
        return math.floor(min(rooms, default=has.get("CPU", 1.0)) + 1e-6)

    def close(self) -> None:
        """Disconnect; end the processes of a cluster that was started here."""
        with _own_signals():
            self.ray.shutdown()


def _probe(address: str) -> None:
    """Raise ConfigError if no cluster answers at an address; in another process, because Ray waits without end."""
    if not _ADDRESS.fullmatch(address):
        raise ConfigError(f"{KEY}: got {address!r}; expected host:port of a cluster's head, or auto")
    words = [sys.executable, "-c", _PROBE, address]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWERS, check=False,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{KEY}: got {address}; no cluster of Ray answered within {_ANSWERS:g} s") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if re.match(r"\w+(\.\w+)*(Error|Exception)?: ", line)]
        why = f" ({last[-1][:200]})" if last else ""
        raise ConfigError(f"{KEY}: got {address}; no cluster of Ray answers there{why}")


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers, which Ray replaces; and Ctrl-C of the terminal from the processes of Ray."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        with blocked(signal.SIGINT, signal.SIGHUP):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _loopback(*, only: bool) -> Iterator[None]:
    """Let the processes of a cluster that is started in the body listen on this machine only.

    Ray listens there if its node has the address 127.0.0.1, but replaces this address by that of the network.
    """
    if not only:
        yield
        return
    from ray._private import services

    name = "resolve_ip_for_localhost"
    before = getattr(services, name, None)
    setattr(services, name, str)
    try:
        yield
    finally:
        setattr(services, name, before)
