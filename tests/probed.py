"""What a probe logs, read as the log reads it."""

import torch

from runner.engine.contracts import Numbers


def said(values):
    """Return the tensors of a probe by tag, `Numbers` as the scalars that they say."""
    found = {}
    for tag, value in values.items():
        if isinstance(value, Numbers):
            assert not any(tensor.ndim or tensor.requires_grad for tensor in value.tensors)
            numbers = [tensor.item() for tensor in value.tensors]
            found |= {each: torch.tensor(number) for each, number in value.say(numbers).items()}
        else:
            found[tag] = value
    return found
