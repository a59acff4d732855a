"""A small checkpoint whose content depends on its step, and the expected ends of loading it."""

import pytest
import torch

from runner.engine.saving.checkpoint import load, save
from runner.errors import CheckpointError

SLOTS = ("00000020.weights.safetensors", "00000020.state.safetensors", "00000020.json")


def weights_at(step):
    return {"conv.weight": torch.full((4, 3, 3, 3), float(step)), "bias": torch.arange(4.0) + step}


def state_at(step):
    return {
        "step": step,
        "model": weights_at(step),
        "momentum": {0: torch.full((7,), step, dtype=torch.bfloat16), 1: (0.9, None)},
        "best": float("nan"),
    }


def save_step(folder, step, **options):
    """Save a small checkpoint whose content depends on its step."""
    weights = weights_at(step)
    options = {"keep": [], "logs": {"metrics.jsonl": step}, "meta": {"threads": step}, **options}
    return save(folder, step, weights, {**state_at(step), "model": weights}, **options)


def is_checkpoint_of(snapshot, step):
    """True if a snapshot equals the one that `save_step` saved at a step."""
    weights, state = weights_at(step), state_at(step)
    return (
        snapshot.step == snapshot.state["step"] == snapshot.meta["threads"] == step
        and snapshot.logs == {"metrics.jsonl": step}
        and all(torch.equal(snapshot.weights[name], weights[name]) for name in weights)
        and all(torch.equal(snapshot.state["model"][name], weights[name]) for name in weights)
        and torch.equal(snapshot.state["momentum"][0], state["momentum"][0])
        and snapshot.state["momentum"][1] == (0.9, None)
    )


def load_older(run):
    """Load, check that it is the checkpoint of step 10 with one note, and return the note."""
    snapshot = load(run)
    assert is_checkpoint_of(snapshot, 10)
    assert len(snapshot.notes) == 1 and "\n" not in snapshot.notes[0]
    assert snapshot.notes[0].startswith(f"checkpoint {run}/checkpoints/00000020.")
    assert snapshot.notes[0].endswith("going back to 00000010.json")
    return snapshot.notes[0]


def refused(call, *arguments, **options):
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)
