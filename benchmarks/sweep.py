"""Time per trial of a sweep, against one process per trial and Hydra's basic launcher; fixed cost of a trial.

`python -m benchmarks.sweep [--quick]`. A trial is an MLP trained on digits for 560 steps. It is compared with the same
command started in other ways, which logs, validates and saves the same; and with a script with Hydra, torch and
SummaryWriter, which validates once in 5 epochs (as the trials then do) and saves only its weights at the end. The fixed
cost is that of trials that do nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds import Pairs, report
from runner.registry import register
from runner.sweeps.launcher import cores

ROOT = Path(__file__).parent.parent
_TRIAL = ("model=mlp", "model.hidden=[128,128]", "augment=[]", "probe=[]", "norm=none", "steps=560", "figures=never")
_SELDOM = ("validate_every=140steps", "checkpoint_every=560steps")
_SCRIPT = """
import hydra, torch
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter
from sklearn.datasets import load_digits
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    torch.manual_seed(cfg.seed)
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16
    y = torch.tensor(data.target)
    x, y, vx, vy = x[:1203], y[:1203], x[1203:1500], y[1203:1500]
    sizes = [64, *cfg.hidden]
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, cfg.steps)
    folder = HydraConfig.get().runtime.output_dir
    writer = SummaryWriter(folder)
    step = 0
    while step < cfg.steps:
        for batch in torch.randperm(len(x)).split(64)[:-1]:
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            writer.add_scalar("loss", loss, step)
            step += 1
            if step % 140 == 0:
                with torch.no_grad():
                    writer.add_scalar("accuracy", (model(vx).argmax(1) == vy).float().mean(), step)
            if step == cfg.steps:
                break
    writer.close()
    torch.save(model.state_dict(), folder + "/model.pt")

main()
"""
SETTINGS = "seed: 0\nlr: 0.1\nhidden: [128, 128]\nsteps: 560\n"
_BASIC = "hydra/launcher=basic"


@register("task", name="idle")
def idle() -> int:
    """Do nothing, so that only the cost of a trial before its first and after its last step remains."""
    return 0


def swept(trials: int, *words: str, trial: Sequence[str] = _TRIAL) -> float:
    """Return the seconds of a sweep, from the command to its end."""
    return seconds("-m", *trial, f"seed=range({trials})", *words)


def _one_process_each(trials: int, *words: str) -> float:
    """Return the seconds of the same trials, each with its own command, one after the other."""
    return sum(seconds(*_TRIAL, "test=never", f"seed={seed}", *words) for seed in range(trials))


def _against_processes(rounds: int, trials: int, few: int) -> Pairs:
    """Return the seconds per trial of each round: sweep, one process per trial (a few are timed)."""
    return [(swept(trials) / trials, _one_process_each(few) / few) for _ in range(rounds)]


def _against_basic(rounds: int, trials: int) -> Pairs:
    """Return the seconds per trial of each round: runner's launcher, Hydra's basic launcher in one process."""
    return [(swept(trials) / trials, swept(trials, _BASIC) / trials) for _ in range(rounds)]


def _against_more_workers(rounds: int, trials: int) -> Pairs:
    """Return the seconds per trial of each round: one worker per core, two per core (some wait for the disk)."""
    more = f"hydra.launcher.workers={2 * cores()}"
    return [(swept(trials) / trials, swept(trials, more) / trials) for _ in range(rounds)]


def _against_script(rounds: int, trials: int, few: int) -> tuple[Pairs, Pairs]:
    """Return the seconds per trial (runner, script) of each round: one process each, and all in one with `-m`."""
    apart, together = [], []
    for _ in range(rounds):
        ours = swept(trials, *_SELDOM) / trials
        apart.append((ours, sum(script(f"seed={seed}") for seed in range(few)) / few))
        together.append((ours, script("-m", f"seed=range({trials})") / trials))
    return apart, together


def script(*words: str) -> float:
    """Return the seconds of the script."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "conf").mkdir()
        (Path(folder) / "conf" / "config.yaml").write_text(SETTINGS)
        (Path(folder) / "train.py").write_text(_SCRIPT)
        return _timed([sys.executable, "train.py", *words], folder)


def _fixed_cost(rounds: int, few: int, many: int, *, workers: int = 1) -> list[float]:
    """Return the milliseconds per additional trial of a sweep whose trials do nothing."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "task").mkdir()
        (Path(folder) / "task" / "idle.yaml").write_text("name: idle\n")
        plugin = ("plugins=[benchmarks.sweep]", f"--config-dir={folder}", f"hydra.launcher.workers={workers}")
        trial = ("task=idle", "model=mlp")

        def once(trials: int) -> float:
            return swept(trials, *plugin, trial=trial)

        return [(once(many) - once(few)) / (many - few) * 1000 for _ in range(rounds)]


def seconds(*words: str) -> float:
    """Return the seconds of a command in an empty folder; raises CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        return _timed([sys.executable, "-m", "runner", *words], folder)


def _timed(command: Sequence[str], folder: str) -> float:
    """Return the seconds of a program; raises CalledProcessError if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=3600)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few trials")
    quick = parser.parse_args().quick
    rounds, trials, few = (1, 8, 1) if quick else (5, 32, 2)
    report("a trial, against one process each", _against_processes(rounds, trials, few), unit="ms", scale=1000)
    report("a trial, against Hydra's basic launcher", _against_basic(rounds, trials), unit="ms", scale=1000)
    report("a trial, against two workers a core", _against_more_workers(rounds, trials), unit="ms", scale=1000)
    apart, together = _against_script(rounds, trials, few)
    report("a trial, against a script in one process each", apart, unit="ms", scale=1000)
    report("a trial, against a script under Hydra's -m", together, unit="ms", scale=1000)
    for workers in (1, cores()):
        costs = _fixed_cost(rounds, 20, 60 if quick else 220, workers=workers)
        said = f"{statistics.median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f}) ms (n={len(costs)}), target 10"
        print(f"fixed cost of a trial, {workers} worker(s): {said}")


if __name__ == "__main__":
    main()
