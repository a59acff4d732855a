"""Test accuracies: every optimizer on digits, and ResNet-20 on CIFAR-10 against a hand-written recipe in plain torch.

`python -m benchmarks.accuracy optimizers [seeds] > docs/optimizers.md`: each optimizer with the learning rate of its
YAML file.
`python -m benchmarks.accuracy cifar FOLDER [epochs] [seeds]`: FOLDER contains train/<class>/*.jpg and
test/<class>/*.jpg. Both recipes use the same 45,000 training images, and their test accuracies should lie within each
other's spread.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import runner.components  # noqa: F401
from benchmarks.experiments import experiment
from runner.assemble import Experiment
from runner.engine.evaluation import evaluate
from runner.engine.train import update
from runner.registry import names, option_config

_BATCH = 128


class _Block(nn.Module):
    """The basic block of He et al. 2015 with the shortcut without parameters (option A)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(cout), nn.BatchNorm2d(cout)
        self.stride, self.extra = stride, cout - cin

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))
        return F.relu(x + y)


def _resnet20() -> nn.Module:
    """Return ResNet-20, initialized as in the paper."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    cin = 16
    for cout, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            layers.append(_Block(cin, cout, stride if i == 0 else 1))
            cin = cout
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias) if module.bias is not None else None
    return model


def _read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Return pixels (N, 3, 32, 32) uint8 and labels (N,) of a split."""
    found = [(path, label) for label, c in enumerate(sorted(folder.iterdir())) for path in sorted(c.iterdir())]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in found]).transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels.copy()), torch.tensor([label for _, label in found])


def _train_by_hand(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], epochs: int, seed: int) -> float:
    """Return the test accuracy of the hand-written recipe."""
    torch.manual_seed(seed)
    model, (x, y) = _resnet20(), train
    mean = x.float().mean((0, 2, 3), keepdim=True)
    std = x.float().std((0, 2, 3), keepdim=True)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay, "weight_decay": 1e-4}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    steps = epochs * -(-len(x) // _BATCH)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4])
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(_BATCH):
            padded = F.pad(x[index], [4] * 4)
            crops = torch.stack(
                [
                    image[:, i : i + 32, j : j + 32]
                    for image, (i, j) in zip(padded, torch.randint(9, (len(index), 2)).tolist(), strict=True)
                ]
            )
            flip = torch.rand(len(index)) < 0.5
            crops[flip] = crops[flip].flip(3)
            optimizer.zero_grad()
            F.cross_entropy(model((crops.float() - mean) / std), y[index]).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = [
            (model((a.float() - mean) / std).argmax(1) == b).sum()
            for a, b in zip(test[0].split(500), test[1].split(500), strict=True)
        ]
    return float(sum(right)) / len(test[1])


def _recipe(folder: str, epochs: int, seed: int) -> Experiment:
    """Return the experiment of recipe=cifar10_resnet."""
    words = ["recipe=cifar10_resnet", "data=imagefolder", f"data.root={folder}", f"epochs={epochs}", f"seed={seed}"]
    # The hand-written recipe draws the classifier as the paper does, like other layers
    words.append("init.head=null")
    return experiment([*words, "probe=[]"])


def _train_runner(made: Experiment) -> float:
    """Return the test accuracy of an experiment, with the last weights."""
    for images, labels in made.batches.stream(0, made.recipe.total_steps):
        made.learner.set_lr()
        update(made.recipe, made.learner, *made.recipe.mix(images, labels, made.learner.step))
    assert made.test is not None
    return evaluate(made.recipe, made.learner, made.test())["accuracy"]


def _cifar(folder: str, epochs: int = 2, seeds: int = 3) -> None:
    """Print both test accuracies per seed, and their medians and ranges."""
    test = _read_images(Path(folder) / "test")
    found: dict[str, list[float]] = {"ours": [], "by hand": []}
    for seed in range(seeds):
        made = _recipe(folder, epochs, seed)
        split = made.batches.split
        train = split.fetch(torch.arange(len(split.labels))), split.labels
        found["ours"].append(_train_runner(made))
        found["by hand"].append(_train_by_hand(train, test, epochs, seed))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.4f}" for name, values in found.items()), flush=True)
    for name, values in found.items():
        print(f"{name}: median {statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, n={seeds})")


_SPECIAL = {
    name: ["average=schedulefree", "scheduler=constant"] for name in ("schedulefree", "schedulefree_sgd")
}  # schedulefree has its own schedule and average


def _optimizers(seeds: int = 3) -> None:
    """Print docs/optimizers.md."""
    print("# Optimizers on digits\n")
    print(
        "With this page you can see how accurate each optimizer is on scikit-learn's digits, at its default "
        "learning rate.\n"
    )
    print("The table shows the test accuracy of `python -m runner optim=<name>` with the last weights, over")
    print(f"seeds 0 to {seeds - 1} (30 epochs, the default ResNet without weight averaging, one CPU core).\n")
    print("| optim | lr | median | lowest | highest | n |\n|---|---|---|---|---|---|")
    for name in names("optim"):
        words = [f"optim={name}", "probe=[]", *_SPECIAL.get(name, ["average=none"])]
        found = [_train_runner(experiment([*words, f"seed={seed}"])) for seed in range(seeds)]
        lr = option_config("optim", name, key="optim")["lr"]
        print(
            f"| {name} | {lr:g} | {statistics.median(found):.4f} | {min(found):.4f} | {max(found):.4f} | {seeds} |",
            flush=True,
        )


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "optimizers":
        _optimizers(*map(int, rest))
    else:
        _cifar(rest[0], *map(int, rest[1:]))
