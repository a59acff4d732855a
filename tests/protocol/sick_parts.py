"""A plugin of parts that are wrong in known ways, with their YAML files: what the gates of the protocol must find."""

from __future__ import annotations

from pathlib import Path

SOURCE = '''
import torch
from dataclasses import replace
from torch import nn
from torch.nn import functional as F

from runner.components.data.digits import digits
from runner.engine.contracts import Images
from runner.registry import register


class Sick(nn.Module):
    def __init__(self, shape, classes, bug):
        super().__init__()
        self.bug = bug
        inputs = shape[0] * shape[1] * shape[2]
        self.first, self.norm, self.head = nn.Linear(inputs, 64), nn.BatchNorm1d(64), nn.Linear(64, classes)
        if bug == "eval_differs":
            self.norm.momentum = 0.0
            nn.init.constant_(self.norm.running_var, 1e4)
        if bug == "frozen":
            self.first.requires_grad_(False)

    def forward(self, x):
        h = x.flatten(1)
        if self.bug == "ignores_input":
            h = h * 0
        if self.bug == "mixes":
            h = h - h.mean(0)
        h = F.relu(self.norm(self.first(h)))
        if self.bug == "detached":
            h = h.detach()
        z = self.head(h)
        if self.bug == "softmax":
            return z.softmax(1)
        return F.relu(z - 1e3) if self.bug == "dead_head" else z


@register("model")
def sick(shape, num_classes, *, bug: str) -> nn.Module:
    """Return a small network with a bug."""
    return Sick(shape, num_classes, bug)


@register("loss")
def summed(*, factor: float, kind: str):
    """Return cross-entropy with another reduction, scale, sign, or with turned labels."""

    def loss(logits, labels):
        if kind == "turned":
            labels = logits.shape[1] - 1 - labels
        return factor * F.cross_entropy(logits, labels, reduction="sum" if kind == "sum" else "mean")

    return loss


@register("optim")
def forgetful(model, *, lr: float, kind: str):
    """Return SGD that lacks a layer, or has no learning rate."""
    parameters = [p for name, p in model.named_parameters() if kind != "misses" or not name.startswith("first")]
    return torch.optim.SGD([{"params": parameters, "name": "all"}], lr=0.0 if kind == "still" else lr, momentum=0.9)


@register("data")
def leaky(*, batch_size: int):
    """Return the digits with training examples in validation."""
    data = digits(classes=None, limit=None, limit_seed=0, batch_size=batch_size, sampling="shuffle", placement="auto")
    pixels = torch.cat([data.val.pixels, data.train.pixels[:60]])
    labels = torch.cat([data.val.labels, data.train.labels[:60]])
    return replace(data, val=Images(pixels, labels), found=None)
'''
FILES = {
    "model/sick.yaml": "name: sick\nbug: none\n",
    "loss/summed.yaml": "name: summed\nfactor: 1.0\nkind: mean\n",
    "optim/forgetful.yaml": "name: forgetful\nlr: 0.1\nkind: none\n",
    "data/leaky.yaml": "name: leaky\nbatch_size: 64\n",
}
GIVEN = ("--config-dir", "sick_conf", "plugins=[sick_parts]", "augment=[]", "probe=[]", "device=cpu", "name=s")


def write(folder: Path) -> None:
    """Write the plugin and its YAML files."""
    (folder / "sick_parts.py").write_text(SOURCE)
    for name, text in FILES.items():
        path = folder / "sick_conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
