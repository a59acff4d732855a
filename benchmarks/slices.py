"""The slices of the benchmark: each measures some targets, and gives a reason for those that it did not measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import step as steps
from benchmarks.child_process import Child, Failed
from benchmarks.contest import (
    ACCELERATE,
    BY_HAND,
    CHANNELS_LAST,
    HF,
    LIGHTNING,
    LIGHTNING_MINIMAL,
    OURS,
    TIMM,
    TRACKED,
    TUNED,
    UNPROBED,
    Loop,
    Outcome,
)
from benchmarks.rounds import Pairs

_COMMANDS = {  # commands without training: arguments and exit code
    "cfg_job": ("--cfg job", 0),
    "wrong_name": ("optim=sdg", 2),
    "wrong_value": ("optim.lr=-1", 2),
    "help": ("--help", 0),
}


@dataclass(frozen=True)
class Effort:
    """Length of the measurement: rounds, steps per turn of each contest, CPU threads of torch."""

    rounds: int = 15
    mlp: int = 2000
    cnn: int = 500
    resnet18: int = 250
    threads: int = 1


QUICK = Effort(rounds=5, mlp=1000, cnn=100)


@dataclass
class Measured:
    """Per target the numbers of each round, or the reason why there are none; failures; losses per loop."""

    pairs: dict[str, Pairs | str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    losses: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)


def step(effort: Effort) -> Measured:
    """Measure the contests of the training loops."""
    found = Measured()
    peers = {"mlp": BY_HAND, "mlp_tuned": TUNED, "mlp_lightning": LIGHTNING, "mlp_lightning_minimal": LIGHTNING_MINIMAL}
    peers |= {"mlp_hf": HF, "mlp_accelerate": ACCELERATE, "mlp_tracked": TRACKED, "mlp_timm": TIMM}
    peers |= {"mlp_unprobed": UNPROBED}
    _enter(found, "mlp", steps.mlp(effort.rounds, effort.mlp, effort.threads), peers)
    peers = {"cnn": BY_HAND, "cnn_last": CHANNELS_LAST}
    _enter(found, "cnn", steps.cnn(effort.rounds, effort.cnn, effort.threads), peers)
    peers = {"resnet18": BY_HAND}
    if _has_gpu():
        _enter(found, "resnet18", steps.resnet18(effort.rounds, effort.resnet18, effort.threads), peers)
    else:
        found.pairs |= dict.fromkeys(peers, "no GPU")
    return found


def _enter(found: Measured, name: str, outcome: Outcome, peers: dict[str, Loop]) -> None:
    """Add the outcome of a contest."""
    found.pairs |= {key: outcome.pairs(OURS, loop) for key, loop in peers.items()}
    found.faults += outcome.faults
    found.losses[name] = outcome.losses


def _probes(effort: Effort) -> Measured:
    """Measure the seconds per step with the norm probes and without."""
    found = _in_child("mlp_probes", _cost_of_probes, ("mlp", effort.rounds))
    others = [_in_child("cnn_probes", _cost_of_probes, ("cnn", effort.rounds))]
    if _has_gpu():
        others.append(_in_child("resnet18_probes", _cost_of_probes, ("resnet18", effort.rounds)))
    else:
        found.pairs["resnet18_probes"] = "no GPU"
    for other in others:
        found.pairs |= other.pairs
        found.faults += other.faults
    return found


def _cost_of_probes(connection: Connection, asked: tuple[str, int]) -> None:
    """Send the seconds per step of a network (with probes, without)."""
    import torch

    from benchmarks.probes import probes

    torch.set_num_threads(1)
    connection.send(probes(*asked))


def _start_up(effort: Effort) -> Measured:
    """Measure the seconds from the command to the second step, and of commands without training."""
    from benchmarks.start_up import answered
    from benchmarks.start_up import start_up as to_second_step

    found: dict[str, Pairs | str] = {"start": to_second_step(effort.rounds)}
    for key, (words, code) in _COMMANDS.items():
        answered(words, code)  # the first one fills the caches
        found[key] = [(answered(words, code), 0.0) for _ in range(effort.rounds)]
    return Measured(found)


def _loader(effort: Effort) -> Measured:
    """Measure the seconds per image of the loaders."""
    return _in_child("loader", _load_images, effort.rounds)


def _load_images(connection: Connection, rounds: int) -> None:
    """Send the seconds per image (runner, PIL)."""
    from benchmarks.loader import COUNT, loader

    connection.send([(ours / COUNT, other / COUNT) for ours, other in loader(rounds)])


def _event_log(effort: Effort) -> Measured:
    """Measure the seconds per logged scalar."""
    return _in_child("event_log", _log_scalars, effort.rounds)


def _log_scalars(connection: Connection, rounds: int) -> None:
    """Send the seconds per scalar (runner, SummaryWriter)."""
    from benchmarks.event_log import STEPS, TAGS, event_log

    connection.send([(ours / STEPS / TAGS, other / STEPS / TAGS) for ours, other in event_log(rounds)])


def _memory(effort: Effort) -> Measured:
    """Measure the peak memory of the loops; it hardly varies, so half of the rounds suffice."""
    return _in_child("memory", _hold_memory, max(1, effort.rounds // 2))


def _hold_memory(connection: Connection, rounds: int) -> None:
    """Send the peak bytes (runner, hand-written loop)."""
    from benchmarks.memory import memory

    connection.send(memory(rounds))


def speedrun(effort: Effort) -> Measured:
    """Return the reason why the speed run is not measured."""
    return Measured(
        {"speedrun": "it needs a GPU and the script; `python -m benchmarks.speedrun` times runner by its rule"}
    )


def _in_child(key: str, function: Callable[[Connection, Any], None], asked: Any) -> Measured:
    """Return what a function sends from its own process."""
    try:
        with Child(function, asked) as child:
            return Measured({key: child.receive()})
    except Failed as failure:
        return Measured({key: f"failed: {failure}"}, [f"{key}: {failure}"])


def _has_gpu() -> bool:
    """Return True if torch finds a GPU; asked in a child process, because this process does not import torch."""
    with Child(_look_for_gpu) as child:
        return bool(child.receive())


def _look_for_gpu(connection: Connection) -> None:
    """Send True if torch finds a GPU."""
    import torch

    connection.send(torch.cuda.is_available())


SLICES: dict[str, Callable[[Effort], Measured]] = {
    "step": step,
    "probes": _probes,
    "start_up": _start_up,
    "loader": _loader,
    "event_log": _event_log,
    "memory": _memory,
    "speedrun": speedrun,
}
