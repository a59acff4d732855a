"""The slices of the benchmark: each measures some of the targets and says why it did not measure the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import step as steps
from benchmarks.children import Child, Failed
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

DOOR = {  # what needs no training: the words of the command and its exit code
    "cfg_job": ("--cfg job", 0),
    "wrong_name": ("optim=sdg", 2),
    "wrong_value": ("optim.lr=-1", 2),
    "help": ("--help", 0),
}


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, steps of a turn of each contest, torch's threads on the CPU."""

    rounds: int = 15
    mlp: int = 2000
    cnn: int = 500
    resnet18: int = 250
    threads: int = 1


QUICK = Effort(rounds=5, mlp=1000, cnn=100)


@dataclass
class Found:
    """By target's key the numbers of each round, or why there are none; what went wrong; equal losses, by loop."""

    pairs: dict[str, Pairs | str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    losses: dict[str, dict[str, tuple[float, float]]] = field(default_factory=dict)


def step(effort: Effort) -> Found:
    """Return the contests of the training loops."""
    found = Found()
    peers = {"mlp": BY_HAND, "mlp_tuned": TUNED, "mlp_lightning": LIGHTNING, "mlp_lightning_minimal": LIGHTNING_MINIMAL}
    peers |= {"mlp_hf": HF, "mlp_accelerate": ACCELERATE, "mlp_tracked": TRACKED, "mlp_timm": TIMM}
    peers |= {"mlp_unprobed": UNPROBED}
    enter(found, "mlp", steps.mlp(effort.rounds, effort.mlp, effort.threads), peers)
    peers = {"cnn": BY_HAND, "cnn_last": CHANNELS_LAST}
    enter(found, "cnn", steps.cnn(effort.rounds, effort.cnn, effort.threads), peers)
    peers = {"resnet18": BY_HAND}
    if has_gpu():
        enter(found, "resnet18", steps.resnet18(effort.rounds, effort.resnet18, effort.threads), peers)
    else:
        found.pairs |= dict.fromkeys(peers, "there is no GPU here")
    return found


def enter(found: Found, name: str, outcome: Outcome, peers: dict[str, Loop]) -> None:
    """Enter what a contest found."""
    found.pairs |= {key: outcome.pairs(OURS, loop) for key, loop in peers.items()}
    found.faults += outcome.faults
    found.losses[name] = outcome.losses


def probes(effort: Effort) -> Found:
    """Return the seconds of a step with the norm probes and without."""
    found = in_child("mlp_probes", cost_of_probes, ("mlp", effort.rounds))
    others = [in_child("cnn_probes", cost_of_probes, ("cnn", effort.rounds))]
    if has_gpu():
        others.append(in_child("resnet18_probes", cost_of_probes, ("resnet18", effort.rounds)))
    else:
        found.pairs["resnet18_probes"] = "there is no GPU here"
    for other in others:
        found.pairs |= other.pairs
        found.faults += other.faults
    return found


def cost_of_probes(connection: Connection, asked: tuple[str, int]) -> None:
    """Send the seconds of a step (with the probes, without any) of a network."""
    import torch

    from benchmarks.probes import probes

    torch.set_num_threads(1)
    connection.send(probes(*asked))


def start_up(effort: Effort) -> Found:
    """Return the seconds from the command to the second step, and of what needs no training."""
    from benchmarks.start_up import answered
    from benchmarks.start_up import start_up as to_second_step

    found: dict[str, Pairs | str] = {"start": to_second_step(effort.rounds)}
    for key, (words, code) in DOOR.items():
        answered(words, code)  # the first fills the caches
        found[key] = [(answered(words, code), 0.0) for _ in range(effort.rounds)]
    return Found(found)


def loader(effort: Effort) -> Found:
    """Return the seconds per image of the loaders."""
    return in_child("loader", load_images, effort.rounds)


def load_images(connection: Connection, rounds: int) -> None:
    """Send the seconds per image (ours, PIL's)."""
    from benchmarks.loader import COUNT, loader

    connection.send([(ours / COUNT, other / COUNT) for ours, other in loader(rounds)])


def event_log(effort: Effort) -> Found:
    """Return the seconds per logged scalar."""
    return in_child("event_log", log_scalars, effort.rounds)


def log_scalars(connection: Connection, rounds: int) -> None:
    """Send the seconds per scalar (ours, SummaryWriter's)."""
    from benchmarks.event_log import STEPS, TAGS, event_log

    connection.send([(ours / STEPS / TAGS, other / STEPS / TAGS) for ours, other in event_log(rounds)])


def memory(effort: Effort) -> Found:
    """Return the peak memory of the loops; it hardly varies, so half of the rounds will do."""
    return in_child("memory", hold_memory, max(1, effort.rounds // 2))


def hold_memory(connection: Connection, rounds: int) -> None:
    """Send the bytes (ours, the bare loop's)."""
    from benchmarks.memory import memory

    connection.send(memory(rounds))


def speedrun(effort: Effort) -> Found:
    """Return nothing: the script to compare with is not here."""
    return Found({"speedrun": "it needs a GPU and the script; `python -m benchmarks.speedrun` times ours by its rule"})


def in_child(key: str, function: Callable[[Connection, Any], None], asked: Any) -> Found:
    """Return what a function sends from a process of its own."""
    try:
        with Child(function, asked) as child:
            return Found({key: child.receive()})
    except Failed as failure:
        return Found({key: f"failed: {failure}"}, [f"{key}: {failure}"])


def has_gpu() -> bool:
    """Tell whether torch sees a GPU (in a child: this process stays without torch)."""
    with Child(look_for_gpu) as child:
        return bool(child.receive())


def look_for_gpu(connection: Connection) -> None:
    """Send whether torch sees a GPU."""
    import torch

    connection.send(torch.cuda.is_available())


SLICES: dict[str, Callable[[Effort], Found]] = {
    "step": step,
    "probes": probes,
    "start_up": start_up,
    "loader": loader,
    "event_log": event_log,
    "memory": memory,
    "speedrun": speedrun,
}
