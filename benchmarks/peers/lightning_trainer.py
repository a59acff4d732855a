"""Lightning's Trainer, fed with the same tensor batches as the loop by hand."""

from __future__ import annotations

import logging
import tempfile
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pace import Pace
from benchmarks.work import TensorBatches, Work


class Classifier(pl.LightningModule):
    """The model with its loss, which it logs where asked to."""

    def __init__(self, work: Work, *, logs: bool) -> None:
        super().__init__()
        self.work, self.logs, self.model = work, logs, work.model()

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels)
        if self.logs:
            self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the work."""
        return self.work.optimizer_of(self.model)


def fit(work: Work, pace: Pace, *, logs: bool, **choices: Any) -> nn.Module:
    """Train one epoch over all the steps."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Classifier(work, logs=logs)
    accelerator = "gpu" if work.device.type == "cuda" else "cpu"
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=1,
        enable_checkpointing=False,
        enable_model_summary=False,
        **choices,
    )
    trainer.fit(module, TensorBatches(work, pace))
    return module.model


def minimal(work: Work, pace: Pace) -> nn.Module:
    """Train without logger, progress bar and logged values."""
    return fit(work, pace, logs=False, logger=False, enable_progress_bar=False)


def as_it_comes(work: Work, pace: Pace) -> nn.Module:
    """Train with the loss in the progress bar and in TensorBoard, every 50 steps there."""
    with tempfile.TemporaryDirectory() as folder:
        return fit(work, pace, logs=True, logger=TensorBoardLogger(folder), callbacks=[TQDMProgressBar()])
