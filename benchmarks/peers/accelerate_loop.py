"""The loop of Accelerate's documentation with a DataLoader over a TensorDataset, without and with a tracker."""

from __future__ import annotations

import tempfile

from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.work import Pace, Work


class _Order:
    """A batch sampler that gives the examples of each step."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self.work, self.pace, self.batch_size, self.drop_last = work, pace, work.batch, False

    def __len__(self) -> int:
        return self.pace.steps

    def __iter__(self):  # noqa: ANN204
        for index in self.pace(self.work.visits(self.pace.steps)):
            yield index.tolist()


def run(work: Work, pace: Pace) -> nn.Module:
    """Train one epoch over all steps without logging."""
    return _fit(work, pace, Accelerator(cpu=work.device.type == "cpu"))


def tracked(work: Work, pace: Pace) -> nn.Module:
    """Train one epoch over all steps, with the loss of each step in TensorBoard, as in runner."""
    with tempfile.TemporaryDirectory() as folder:
        accelerator = Accelerator(cpu=work.device.type == "cpu", log_with="tensorboard", project_dir=folder)
        accelerator.init_trackers("benchmark")
        trained = _fit(work, pace, accelerator)
        accelerator.end_training()
        return trained


def _fit(work: Work, pace: Pace, accelerator: Accelerator) -> nn.Module:
    """Train one epoch over all steps; log the loss of each step if there is a tracker."""
    data = DataLoader(TensorDataset(work.images.cpu(), work.labels.cpu()), batch_sampler=_Order(work, pace))
    plain = work.model()
    model, optimizer, loader = accelerator.prepare(plain, work.optimizer_of(plain), data)
    for step, (images, labels) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        accelerator.backward(loss)
        optimizer.step()
        if accelerator.trackers:
            accelerator.log({"train/loss": loss.item()}, step=step)
    return plain
