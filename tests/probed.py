"""What a probe logs, read as the log reads it."""

import torch

from runner.engine.contracts import Numbers


def said(values):
    """Return the tensors of a probe by tag, `Numbers` as the scalars that they say."""
    found = {}
    for tag, value in values.items():
        if isinstance(value, Numbers):
            assert value.tensor.ndim == 1 and not value.tensor.requires_grad
            found |= {each: torch.tensor(number) for each, number in value.say(value.tensor.tolist()).items()}
        else:
            found[tag] = value
    return found
