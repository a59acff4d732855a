"""What is claimed, with its bounds: the table of targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Compares = Literal["ours / other", "other / ours", "ours"]


@dataclass(frozen=True)
class Target:
    """A claim: what is compared with what, and within which bound; without a bound it is told for information."""

    key: str
    slice: str  # of slices.py, which measures it
    title: str
    other: str
    compares: Compares
    bound: float | None
    stretch: float | None
    unit: str  # of the two medians
    scale: float = 1.0  # from the measured numbers to that unit

    @property
    def name(self) -> str:
        """What is compared with what."""
        return f"{self.title} vs {self.other}" if self.other else self.title

    def value(self, ours: float, other: float) -> float:
        """Return the number of a round that the bound is for."""
        if self.compares == "ours":
            return ours
        return ours / other if self.compares == "ours / other" else other / ours

    def within(self, value: float, bound: float) -> bool:
        """Tell whether a value keeps a bound: from below for `other / ours`, from above otherwise."""
        return value >= bound if self.compares == "other / ours" else value <= bound


MLP = "step of the MLP 64-128-128-10, B 64, CPU"
CNN = "step of the small CNN, B 64 of 32x32, CPU"
RESNET = "step of ResNet-18, B 512 of 32x32, bf16, GPU"
NORMS = "norms of every layer each 50 steps"
US = ("us/step", 1e6)

TARGETS = (
    Target("mlp", "step", MLP, "hand-written loop", "ours / other", 1.02, 0.92, *US),
    Target("mlp_tuned", "step", MLP, "hand-written loop with index_select", "ours / other", None, None, *US),
    Target("mlp_lightning", "step", MLP, "Lightning, as it comes", "other / ours", 2.8, 3.3, *US),
    Target("mlp_lightning_minimal", "step", MLP, "Lightning, all off", "other / ours", 1.7, 2.0, *US),
    Target("mlp_hf", "step", MLP, "Hugging Face Trainer", "other / ours", 2.2, 2.5, *US),
    Target("mlp_accelerate", "step", MLP, "Accelerate + DataLoader", "other / ours", 4.0, 5.0, *US),
    Target("mlp_tracked", "step", MLP, "Accelerate, each loss tracked", "other / ours", None, None, *US),
    Target("mlp_timm", "step", MLP, "timm's train_one_epoch", "other / ours", 1.0, None, *US),
    Target("mlp_unprobed", "step", MLP, "ours without probes", "ours / other", None, None, *US),
    Target("cnn", "step", CNN, "hand-written loop", "ours / other", 1.01, 1.00, *US),
    Target("cnn_last", "step", CNN, "hand-written loop with channels_last", "ours / other", None, None, *US),
    Target("resnet18", "step", RESNET, "hand-written loop", "ours / other", 1.01, 1.00, *US),
    Target("mlp_probes", "probes", f"{NORMS}: {MLP}", "without", "ours / other", 1.01, 1.005, *US),
    Target("cnn_probes", "probes", f"{NORMS}: {CNN}", "without", "ours / other", 1.005, 1.001, *US),
    Target("resnet18_probes", "probes", f"{NORMS}: {RESNET}", "without", "ours / other", 1.005, 1.001, *US),
    Target(
        "start", "start_up", "start to second step", "bare script with torch.optim", "ours / other", 0.80, 0.70, "s"
    ),
    Target("cfg_job", "start_up", "`--cfg job`", "", "ours", 0.30, 0.25, "s"),
    Target("wrong_name", "start_up", "config error: no such option", "", "ours", 0.30, 0.25, "s"),
    Target("wrong_value", "start_up", "config error: value out of range", "", "ours", 0.30, 0.25, "s"),
    Target("help", "start_up", "`--help`", "", "ours", 0.50, 0.30, "s"),
    Target(
        "loader",
        "loader",
        "loader: crop, flip, normalize 32x32",
        "PIL DataLoader",
        "other / ours",
        12,
        20,
        "us/image",
        1e6,
    ),
    Target("event_log", "event_log", "logging a scalar", "SummaryWriter", "ours / other", 1 / 8, 1 / 10, "us", 1e6),
    Target("memory", "memory", "peak memory, probes off", "bare loop", "ours / other", 1.02, 1.00, "MiB", 2**-20),
    Target("speedrun", "speedrun", "airbench94 (muon) by config, GPU", "its script", "ours / other", 1.00, 0.93, "s"),
)
