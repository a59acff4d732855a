"""The summary says where the check for finite numbers makes the host wait."""

import pytest
import torch
from small_runs import build, small

from runner.assemble.learner import waits

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.mark.parametrize(
    ("optim", "said"),
    [
        ("adam", []),
        ("lion", ["Lion has no fused step: the host waits for cuda in each, to know that all is finite"]),
        ("muon", ["Muon has no fused step: the host waits for cuda in each, to know that all is finite"]),
    ],
)
def test_an_optimizer_without_a_fused_step_is_told_of_on_a_gpu_only(optim, said):
    made = build(small({"optim": optim}))
    assert waits(made.learner, CUDA) == said
    assert waits(made.learner, CPU) == []
    assert not any("waits" in line for line in made.summary)
