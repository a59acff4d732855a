"""Peak memory of the training loop, without probes, against a hand-written loop for the same network.

`python -m benchmarks.memory`: a ResNet-8 of width 64 with batch size 128 of 32x32. Each loop runs in a new process, in
turns, with the same initial weights and batches, to the same loss. The figure is the peak memory of the process minus
its memory after all imports. On the CPU it is Linux's count (VmHWM), with an allocator that returns freed tensors
immediately, so that unused memory does not count. On a GPU it is the count of torch's allocator.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch._dynamo  # torch.optim would import it later
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from benchmarks.experiments import experiment
from benchmarks.rounds import interleave
from runner.engine.logs.log import Log
from runner.engine.randomness import epoch_order
from runner.engine.train import train

STEPS, _BATCH, _WIDTH = 2, 128, 64  # the optimizer state exists from the second step on
_WORDS = ["model=resnet", "model.depth=8", f"model.width={_WIDTH}", "data=gaussian", "data.size=32", "seed=0"]
_WORDS += [f"data.batch_size={_BATCH}", f"data.train={4 * _BATCH}", "augment=[]", "probe=[]", "average=none"]
_WORDS += ["scheduler=constant", f"steps={STEPS + 1}", "validate_every=100000steps", "checkpoint_every=100000steps"]
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # bytes; glibc returns larger blocks to the system
_KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def ours(folder: Path, device: str) -> float:
    """Train with runner's loop and return the last loss."""
    made = experiment([*_WORDS, f"device={device}"])
    batches = made.batches.stream(0, STEPS)
    made.batches.stream = lambda first, stop: batches  # type: ignore[method-assign]  # stops before validation
    log = Log()
    train(made.recipe, made.learner, made.batches, {}, log, lambda: None)
    return log.flush()["train/loss"]


def _by_hand(folder: Path, device: str) -> float:
    """Train with a hand-written loop and return the last loss."""
    work = torch.load(folder / "work.pt")
    model = _resnet8()
    copy(work.pop("weights"), model)
    model.to(device)
    pixels, labels, mean, scale = (work[name].to(device) for name in ("pixels", "labels", "mean", "scale"))
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 0.0005}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    for index in epoch_order(0, 0, len(labels)).to(device).split(_BATCH)[:STEPS]:
        optimizer.zero_grad()
        loss = F.cross_entropy(model((pixels[index] - mean) * scale), labels[index])
        loss.backward()
        optimizer.step()
    return loss.item()


def _resnet8() -> nn.Module:
    """Return the hand-written ResNet-8."""
    layers: list[nn.Module] = [nn.Conv2d(1, _WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(_WIDTH), nn.ReLU(inplace=True)]
    layers += [_Block(_WIDTH, _WIDTH)]
    layers += [_Block(cin, 2 * cin, stride=2, downsample=_Halved(cin)) for cin in (_WIDTH, 2 * _WIDTH)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * _WIDTH, 10))


class _Block(BasicBlock):
    """torchvision's block with the shortcut computed first, as in runner's network.

    The gradient of the shortcut is then computed last and not kept during the backward pass of the branch, which
    saves 4 % of the memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(shortcut + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class _Halved(nn.Module):
    """Keeps every other pixel and doubles the channels with zeros (He et al. 2015, option A)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2C, H/2, W/2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.channels))


def tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters, sorted by kind of layer and then by order of use."""
    return [p for kind in _KINDS for m in model.modules() if isinstance(m, kind) for p in m.parameters()]


@torch.no_grad()
def copy(weights: list[Tensor], model: nn.Module) -> None:
    """Copy the weights into the model."""
    for parameter, weight in zip(tensors(model), weights, strict=True):
        parameter.copy_(weight)


def _write_work(folder: Path) -> None:
    """Write the initial weights, the data and their statistics for both loops."""
    made = experiment([*_WORDS, "device=cpu"])
    split, statistic = made.batches.split, made.learner.preprocess.state_dict()
    pixels = split.fetch(torch.arange(len(split.labels)))
    weights = [weight.detach().clone() for weight in tensors(made.learner.model)]
    torch.save({"weights": weights, "pixels": pixels, "labels": split.labels, **statistic}, folder / "work.pt")


def child(loop: Callable[[Path, str], float], folder: Path, device: str) -> None:
    """Print the peak memory of a loop in bytes, and its loss."""
    experiment([f"device={device}", "probe=[]"])  # imports everything that is imported later
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before, loss = torch.cuda.memory_allocated(), loop(folder, device)
        print(torch.cuda.max_memory_allocated() - before, loss)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, loss = _memory_of("VmRSS"), loop(folder, device)
        print(_memory_of("VmHWM") - before, loss)


def _memory_of(word: str) -> int:
    """Return a memory count of this process in bytes, from Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(word))


def peak(loop: str, folder: str, device: str, losses: list[float]) -> float:
    """Return the peak memory of a loop in its own process, in bytes."""
    command = [sys.executable, "-m", "benchmarks.memory", loop, folder, device]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | _ALLOCATOR)
    found, loss = ended.stdout.split()
    losses.append(float(loss))
    return float(found)


def memory(rounds: int, device: str | None = None) -> list[tuple[float, float]]:
    """Return the peak bytes (runner, hand-written) of each round, on the GPU if there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        _write_work(Path(folder))
        pairs = interleave(*(partial(peak, loop, folder, device, losses) for loop in ("ours", "by_hand")), rounds)
    assert max(losses) - min(losses) < 1e-3 * max(losses), losses
    return pairs


def main(rounds: int = 5) -> None:
    """Print the peaks and their ratio."""
    pairs = memory(rounds)
    ratios = sorted(mine / other for mine, other in pairs)
    mine, other = (statistics.median(column) / 2**20 for column in zip(*pairs, strict=True))
    print(
        f"peak memory: ours {mine:.1f} MiB, by hand {other:.1f} MiB, ratio {statistics.median(ratios):.4f} "
        f"({ratios[0]:.4f} to {ratios[-1]:.4f}, n={len(ratios)})"
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        child({"ours": ours, "by_hand": _by_hand}[sys.argv[1]], Path(sys.argv[2]), sys.argv[3])
    else:
        main()
