"""Hugging Face Trainer with the tensor batches of the hand-written loop, without progress bar and clipping."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from benchmarks.work import Pace, TensorBatches, Work


class _Classifier(nn.Module):
    """The model with its loss, in the form that Trainer expects."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return {"loss": F.cross_entropy(self.model(images), labels)}


class _Batches(IterableDataset[dict[str, Tensor]]):
    """Tensor batches with the argument names of `forward`."""

    def __init__(self, batches: TensorBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return ({"images": images, "labels": labels} for images, labels in self.batches)


class _TensorTrainer(Trainer):  # type: ignore[misc]
    """A Trainer without DataLoader."""

    def get_train_dataloader(self) -> Any:
        """Return the batches."""
        return self.train_dataset


def run(work: Work, pace: Pace) -> nn.Module:
    """Train one epoch over all steps, with the loss logged every 50 steps."""
    classifier = _Classifier(work.model())
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=pace.steps,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            logging_steps=50,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=work.device.type == "cpu",
        )
        optimizers = work.optimizer_of(classifier.model), None
        _TensorTrainer(
            classifier, arguments, train_dataset=_Batches(TensorBatches(work, pace)), optimizers=optimizers
        ).train()
    return classifier.model
