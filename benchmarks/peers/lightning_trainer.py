"""Lightning Trainer with the tensor batches of the hand-written loop."""

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

from benchmarks.work import Pace, TensorBatches, Work


class _Classifier(pl.LightningModule):
    """The model with its loss, which is logged if `logs` is True."""

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


def _fit(work: Work, pace: Pace, *, logs: bool, **choices: Any) -> nn.Module:
    """Train one epoch over all steps."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = _Classifier(work, logs=logs)
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
    return _fit(work, pace, logs=False, logger=False, enable_progress_bar=False)


def as_it_comes(work: Work, pace: Pace) -> nn.Module:
    """Train with the loss in the progress bar and, every 50 steps, in TensorBoard."""
    with tempfile.TemporaryDirectory() as folder:
        return _fit(work, pace, logs=True, logger=TensorBoardLogger(folder), callbacks=[TQDMProgressBar()])
