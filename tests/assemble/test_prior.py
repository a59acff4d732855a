"""init.head=prior: an untrained classifier predicts the class frequencies."""

import pytest
import torch
from running import job

from runner.assemble import assemble


def test_the_first_loss_is_the_entropy_of_the_shares():
    made = assemble(job("model=mlp", "init.head=prior", "augment=[]").config)
    labels = made.batches.split.labels
    shares = labels.bincount() / len(labels)
    images, _ = next(made.batches.stream(0, 1))
    logits = made.learner.model(images)
    assert torch.allclose(logits.softmax(1), shares.expand_as(logits), atol=1e-6)
    loss = torch.nn.functional.cross_entropy(logits[:1].expand(len(labels), -1), labels)
    assert loss.item() == pytest.approx(-(shares * shares.log()).sum().item(), rel=1e-5)
    assert "the classifier starts with the log class frequencies as bias" in made.summary


def test_with_balanced_sampling_the_shares_are_those_of_an_epoch():
    words = ("model=mlp", "init.head=prior", "augment=[]", "data.sampling=balanced")
    made = assemble(job(*words).config)
    logits = made.learner.model(next(made.batches.stream(0, 1))[0])
    assert torch.allclose(logits.softmax(1), torch.tensor(0.1), atol=1e-6)
