"""A contest: each loop runs in its own process, in turns, on the same work, and must reach the same loss."""

from __future__ import annotations

import importlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.child_process import Child, Failed
from benchmarks.rounds import Pairs, Size

TIMM_SCRIPT = "TIMM_TRAIN_SCRIPT"  # environment variable: path of train.py in a checkout of timm
_EARLY = {"cpu": 1e-5, "cuda": 2e-2}  # relative, after `Size.check` steps; GPUs add in an order that varies
_LAST = {"cpu": 1e-2, "cuda": 0.5}  # absolute, at the end


@dataclass(frozen=True)
class Loop:
    """A loop of a contest: its name, its function in `benchmarks.peers`, and the package that it needs."""

    name: str
    function: str
    package: str = "torch"

    def missing(self) -> str:
        """Return the reason why the loop cannot run here, or an empty string."""
        if find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.package == "timm" and TIMM_SCRIPT not in os.environ:
            return "timm's loop is in train.py of its repository, not in its package; give its path with --timm"
        return ""


OURS = Loop("ours", "ours:run")
UNPROBED = Loop("ours without probes", "ours:without_probes")
BY_HAND = Loop("hand-written loop", "by_hand:run")
BY_HAND_BF16 = Loop("hand-written loop", "by_hand:mixed")
CHANNELS_LAST = Loop("hand-written loop, channels_last", "by_hand:channels_last")
TUNED = Loop("hand-written loop, index_select", "by_hand:tuned")
LIGHTNING = Loop("Lightning, as it comes", "lightning_trainer:as_it_comes", "lightning")
LIGHTNING_MINIMAL = Loop("Lightning, all off", "lightning_trainer:minimal", "lightning")
HF = Loop("Hugging Face Trainer", "hf_trainer:run", "transformers")
ACCELERATE = Loop("Accelerate + DataLoader", "accelerate_loop:run", "accelerate")
TRACKED = Loop("Accelerate, each loss tracked", "accelerate_loop:tracked", "accelerate")
TIMM = Loop("timm's train_one_epoch", "timm_loop:run", "timm")
PEERS = (LIGHTNING, LIGHTNING_MINIMAL, HF, ACCELERATE, TRACKED, TIMM)


@dataclass
class Outcome:
    """Seconds of each turn and losses (early, last) per loop; reasons for missing loops; failures."""

    size: Size
    seconds: dict[str, list[float]] = field(default_factory=dict)
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def pairs(self, ours: Loop, other: Loop) -> Pairs | str:
        """Return the seconds per step of both in each round, or the reason why there are none."""
        for loop in (ours, other):
            if loop.name in self.missing:
                return self.missing[loop.name]
        turns = zip(self.seconds[ours.name], self.seconds[other.name], strict=True)
        return [(a / self.size.turn, b / self.size.turn) for a, b in turns]

    def drop(self, name: str, reason: str) -> None:
        """Remove a loop that failed."""
        self.missing[name] = reason
        self.faults.append(f"{name}: {reason}")


def run_contest(loops: Sequence[Loop], network: str, overrides: list[str], size: Size) -> Outcome:
    """Run the loops that are installed in turns, and compare their losses.

    A loop that fails is listed in `missing` and `faults`, and the others continue.

    Raises:
        Failed: the work could not be written.
    """
    outcome = Outcome(size, missing={loop.name: reason for loop in loops if (reason := loop.missing())})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        work = str(Path(folder) / "work.pt")
        with Child(_write_work, work, network, overrides, size.steps) as maker:
            maker.receive()
        children: dict[Loop, Child] = {}
        for loop in [loop for loop in loops if loop.name not in outcome.missing]:
            child = stack.enter_context(Child(_run_loop, loop.function, work, size))
            if (
                _answer(child.receive, loop, outcome) is not _SILENCE
            ):  # one after the other, because starting takes CPU time
                children[loop] = child
        _take_turns(children, outcome)
    check_losses(outcome, "cuda" if "device=cuda" in overrides else "cpu")
    return outcome


def _take_turns(children: dict[Loop, Child], outcome: Outcome) -> None:
    """Give each loop its turns, in an order that is reversed in every round, and then let it end."""
    for number in range(outcome.size.turns):
        for loop in list(children)[:: 1 if number % 2 else -1]:
            seconds = _answer(children[loop].ask, loop, outcome)
            if seconds is _SILENCE:
                del children[loop]
            else:
                outcome.seconds.setdefault(loop.name, []).append(seconds)
    for loop, child in children.items():
        losses = _answer(child.ask, loop, outcome)
        if losses is not _SILENCE:
            outcome.losses[loop.name] = losses


_SILENCE = object()


def _answer(ask: Callable[[], Any], loop: Loop, outcome: Outcome) -> Any:
    """Return the answer of a child, or _SILENCE if it failed; the failure is recorded."""
    try:
        return ask()
    except Failed as failure:
        outcome.drop(loop.name, f"failed: {failure}")
        return _SILENCE


def check_losses(outcome: Outcome, device: str) -> None:
    """Remove every loop whose losses differ from those of the first one (runner)."""
    (first, (early, last)), *others = outcome.losses.items()
    for name, found in others:
        same = math.isclose(found[0], early, rel_tol=_EARLY[device]) and abs(found[1] - last) <= _LAST[device]
        if not same:
            outcome.drop(name, f"its losses {found} differ from {(early, last)} of {first}: it did different work")


def _write_work(connection: Connection, path: str, network: str, overrides: list[str], steps: int) -> None:
    """Write the work (in a child, because it imports runner)."""
    from benchmarks.work import write_work

    write_work(Path(path), network, overrides, steps)
    connection.send("done")


def _run_loop(connection: Connection, function: str, path: str, size: Size) -> None:
    """Run a loop in its child: some steps for the check, then its turns; send the losses of both."""
    import torch

    from benchmarks.work import Pace, read_work

    torch.set_num_threads(size.threads)
    work = read_work(Path(path))
    module, name = function.split(":")
    run = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)
    early = work.loss(run(work, Pace(Size(warm=size.check - 1, turn=0, turns=0))))
    last = work.loss(run(work, Pace(size, connection, cuda=work.device.type == "cuda")))
    connection.send((early, last))
