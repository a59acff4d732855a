"""The plain script of `benchmarks.whole_run`: trains, validates each epoch, keeps an average, saves the best weights.

`python -m benchmarks.peers.whole_script <work.pt> <epochs> <out.pt>`
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_BATCH = 64


def main(work_path: str, epochs: int, out: str) -> None:
    """Train the model of a file for some epochs, and print the best accuracy."""
    # The benchmark's own file
    work = torch.load(work_path, weights_only=False)
    model, (images, labels), (val_images, val_labels) = work["model"], work["train"], work["val"]
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True)
    total = epochs * math.ceil(len(labels) / _BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    best, generator = 0.0, torch.Generator().manual_seed(0)
    for _ in range(epochs):
        model.train()
        losses = []
        for index in torch.randperm(len(labels), generator=generator).split(_BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[index]), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
            losses.append(loss.detach())
        if not torch.stack(losses).isfinite().all():
            raise SystemExit("diverged")
        accuracy = _validate(averaged.module, val_images, val_labels)
        if accuracy > best:
            best = accuracy
            torch.save({"model": averaged.module.state_dict(), "accuracy": accuracy}, out)
    print(f"best {best:.4f}")


@torch.no_grad()
def _validate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy of a model, with the BatchNorm statistics of training."""
    model.eval()
    right = sum((model(x).argmax(1) == y).sum() for x, y in zip(images.split(256), labels.split(256), strict=True))
    return int(right) / len(labels)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
