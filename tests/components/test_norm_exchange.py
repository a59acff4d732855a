"""norm=sync_batch in two processes: forward, backward and statistics are those of batch norm on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ROOT
from torch import Tensor, nn

from runner.components.norm import sync_batch

# What each of two processes does with its share of a batch
PROGRAM = """
import os, sys
from datetime import timedelta

import torch
from torch import distributed

from runner.components.norm import sync_batch

rank, folder, device = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
)
found = {}
for name, case in torch.load(f"{folder}/cases.pt").items():
    norm = sync_batch(momentum=0.3, eps=1e-3, scale=True)(case["x"].shape[1], case["x"].ndim - 2)
    norm = norm.to(device, case["state"])
    norm.load_state_dict(case["weights"])
    steps = []
    for share in (case["shares"], case["shares"][::-1]):
        x, factor = (case[key].split(share)[rank].to(device) for key in ("x", "factor"))
        x = x.requires_grad_()
        out = norm(x)
        (out * factor).sum().backward()
        steps.append((out.detach().cpu(), x.grad.cpu()))
    gradients = {key: p.grad.cpu() for key, p in norm.named_parameters()}
    norm.eval()
    evaluated = norm(case["x"].to(device)).detach().cpu()
    found[name] = (steps, gradients, {k: t.cpu() for k, t in norm.state_dict().items()}, evaluated)
torch.save(found, f"{folder}/{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()
os._exit(0)
"""


def case(*size: int, shares: tuple[int, int], dtype: torch.dtype = torch.float64) -> dict[str, object]:
    """Return a batch far from mean 0, and the weights of a norm."""
    random = torch.Generator().manual_seed(len(size))
    x = torch.randn(*size, generator=random, dtype=torch.float64) * 3 + 20
    factor = torch.randn(*size, generator=random, dtype=torch.float64)
    state = torch.float32 if dtype is torch.bfloat16 else dtype
    norm = sync_batch(momentum=0.3, eps=1e-3, scale=True)(size[1], len(size) - 2).to(state)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2, generator=random)
    return {
        "x": x.to(dtype),
        "factor": factor.to(dtype),
        "shares": list(shares),
        "state": state,
        "weights": norm.state_dict(),
    }


CASES = {
    "maps": case(10, 6, 4, 3, shares=(5, 5)),
    "unequal shares": case(10, 6, 4, 3, shares=(7, 3)),
    "features": case(9, 5, shares=(8, 1)),
    "float32": case(10, 6, 4, 3, shares=(6, 4), dtype=torch.float32),
    "bfloat16": case(10, 6, 4, 3, shares=(6, 4), dtype=torch.bfloat16),
}


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple]]:
    """Return what each of two processes found, by case."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU, on which torch's own exchange is used")
    folder = tmp_path_factory.mktemp("exchange")
    torch.save(CASES, folder / "cases.pt")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", PROGRAM]
    children = [
        subprocess.Popen([*arguments, rank, str(folder), request.param], env=environment, stderr=subprocess.PIPE)
        for rank in "01"
    ]
    for child in children:
        _, said = child.communicate(timeout=240)
        assert child.returncode == 0, said.decode()
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_normalize_as_one_with_the_joined_batch(name: str, both: list[dict[str, tuple]]) -> None:
    given = CASES[name]
    x: Tensor = given["x"]
    norm = (nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d)(x.shape[1], eps=1e-3, momentum=0.3).to(given["state"])
    norm.load_state_dict(given["weights"])
    exact = {"atol": 1e-6, "rtol": 1e-6} if x.dtype is torch.float64 else {"atol": 2e-5, "rtol": 2e-5}
    rough = {"atol": 0.05, "rtol": 0.05} if x.dtype is torch.bfloat16 else exact
    for step in (0, 1):
        whole = x.detach().clone().requires_grad_()
        out = norm(whole)
        (out * given["factor"]).sum().backward()
        joined = [torch.cat([each[name][0][step][part] for each in both]) for part in (0, 1)]
        assert joined[0].dtype == x.dtype
        torch.testing.assert_close(joined[0], out.detach(), **rough)
        torch.testing.assert_close(joined[1], whole.grad, **rough)
    for key, parameter in norm.named_parameters():
        summed = both[0][name][1][key] + both[1][name][1][key]
        torch.testing.assert_close(summed, parameter.grad, **(rough if rough is not exact else {}))
    norm.eval()
    for each in both:
        torch.testing.assert_close(each[name][2], dict(norm.state_dict()), **exact)
        torch.testing.assert_close(each[name][3], norm(x).detach(), **rough)
