"""The loop of Accelerate's documentation over a DataLoader of a TensorDataset."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.pace import Pace
from benchmarks.work import Work


class Order:
    """The examples of each step, as a DataLoader's batch sampler gives them."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self.work, self.pace, self.batch_size, self.drop_last = work, pace, work.batch, False

    def __len__(self) -> int:
        return self.pace.steps

    def __iter__(self):  # noqa: ANN204
        for index in self.pace(self.work.visits(self.pace.steps)):
            yield index.tolist()


def run(work: Work, pace: Pace) -> nn.Module:
    """Train one epoch over all the steps, nothing logged."""
    accelerator = Accelerator(cpu=work.device.type == "cpu")
    data = DataLoader(TensorDataset(work.images.cpu(), work.labels.cpu()), batch_sampler=Order(work, pace))
    plain = work.model()
    model, optimizer, loader = accelerator.prepare(plain, work.optimizer_of(plain), data)
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        accelerator.backward(loss)
        optimizer.step()
    return plain
