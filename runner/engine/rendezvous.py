"""The place of this process among several, as torchrun or Slurm says in the environment; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from runner.errors import ConfigError

# What torchrun sets; the first two say that there are several processes
_TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What srun sets in each task of a step; a batch script alone has no step with several tasks
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
_PORTS = range(20_000, 30_000)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One of several processes that train one model together.

    Attributes:
        rank, size: Its number, and the number of all.
        local_rank: Its number on its machine.
        address, port: Where the processes meet.
        attempt: How often they were started before.
        keeps_store: True if an agent keeps the store where they meet, so that it outlives all of them.
        starter: What has started them.
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int
    attempt: int = 0
    keeps_store: bool = False
    starter: str = "torchrun"


def place_in(environment: Mapping[str, str]) -> Place | None:
    """Return the place that an environment describes, None for a process on its own.

    Raises:
        ConfigError: The environment says only a part of it, or something that cannot be.
    """
    if any(name in environment for name in _TORCH[:2]):
        found = _of_torchrun(environment)
    elif _int_of(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        found = _of_slurm(environment)
    else:
        return None
    if not 0 <= found.rank < found.size or found.local_rank < 0:
        raise ConfigError(
            f"{found.starter}: got rank {found.rank} of {found.size} processes, must be 0 to {found.size - 1}"
        )
    return found if found.size > 1 else None


def _int_of(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Return a number of the environment; raises ConfigError if it is none, or missing without a default."""
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ConfigError(f"the environment: {name} is {'not set' if text is None else repr(text)}, must be an integer")
    return int(text)


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    """Return the place that torchrun describes."""
    missing = [name for name in _TORCH if not environment.get(name)]
    if missing:
        given = ", ".join(name for name in _TORCH if environment.get(name))
        raise ConfigError(
            f"the environment: {given} set, but not {', '.join(missing)}; start several processes with "
            "torchrun --nproc-per-node=<number> -m runner ..., or unset them for one"
        )
    return Place(
        rank=_int_of(environment, "RANK"),
        size=_int_of(environment, "WORLD_SIZE"),
        local_rank=_int_of(environment, "LOCAL_RANK"),
        address=environment["MASTER_ADDR"],
        port=_int_of(environment, "MASTER_PORT"),
        attempt=_int_of(environment, "TORCHELASTIC_RESTART_COUNT", 0),
        keeps_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _of_slurm(environment: Mapping[str, str]) -> Place:
    """Return the place that srun describes: processes meet on the first node, at a port that follows from the job."""
    missing = [name for name in _SLURM if not environment.get(name)]
    if missing:
        raise ConfigError(f"the environment of srun: {', '.join(missing)} not set")
    job, step = _int_of(environment, "SLURM_JOB_ID", 0), _int_of(environment, "SLURM_STEP_ID", 0)
    port = _PORTS[(job * 31 + step) % len(_PORTS)]
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
    return Place(
        rank=_int_of(environment, "SLURM_PROCID"),
        size=_int_of(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=_int_of(environment, "SLURM_LOCALID"),
        address=environment.get("MASTER_ADDR") or first_host(nodes),
        port=_int_of(environment, "MASTER_PORT", port),
        attempt=_int_of(environment, "SLURM_RESTART_COUNT", 0),
        starter="srun",
    )


def first_host(nodes: str) -> str:
    """Return the first host of a list as Slurm writes it: `node[03-05,9],other` begins with `node03`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise ConfigError(f"the environment of srun: got the hosts {nodes!r}, must be names")
    return f"{match[1]}{match[2] or ''}{match[3] or ''}"
