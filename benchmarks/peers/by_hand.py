"""The hand-written loop: preprocessed tensors in memory, a fused optimizer, no logging."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.work import Pace, Work


def run(work: Work, pace: Pace) -> nn.Module:
    """Train with the usual loop."""
    model, images, labels = work.model(), work.images, work.labels
    optimizer = work.optimizer_of(model)
    for index in pace(work.visits(pace.steps)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[index]), labels[index])
        loss.backward()
        optimizer.step()
    return model


def tuned(work: Work, pace: Pace) -> nn.Module:
    """Train with `index_select`, which takes less than half the time of `images[index]`."""
    model, images, labels = work.model(), work.images, work.labels
    optimizer = work.optimizer_of(model)
    for index in pace(work.visits(pace.steps)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images.index_select(0, index)), labels.index_select(0, index))
        loss.backward()
        optimizer.step()
    return model


def channels_last(work: Work, pace: Pace) -> nn.Module:
    """Train with channels_last, which is often faster for convolutions."""
    model, labels = work.model().to(memory_format=torch.channels_last), work.labels
    images = work.images.to(memory_format=torch.channels_last)
    optimizer = work.optimizer_of(model)
    for index in pace(work.visits(pace.steps)):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images[index]), labels[index])
        loss.backward()
        optimizer.step()
    return model


def mixed(work: Work, pace: Pace) -> nn.Module:
    """Train with bfloat16 autocast and channels_last."""
    model, labels = work.model().to(memory_format=torch.channels_last), work.labels
    images = work.images.to(memory_format=torch.channels_last)
    optimizer = work.optimizer_of(model)
    for index in pace(work.visits(pace.steps)):
        optimizer.zero_grad()
        with torch.autocast(work.device.type, torch.bfloat16):
            loss = F.cross_entropy(model(images[index]), labels[index])
        loss.backward()
        optimizer.step()
    return model
