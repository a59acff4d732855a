"""The claims with their bounds, and how a measured result compares with its bound."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.rounds import Pairs, Spread, spread

_Compares = Literal["ours / other", "other / ours", "ours"]


@dataclass(frozen=True)
class Target:
    """A claim: what is compared with what, and its bound. Without a bound it is for information only."""

    key: str
    slice: str  # group in slices.py that measures it
    title: str
    other: str
    compares: _Compares
    bound: float | None
    stretch: float | None
    unit: str  # of the two medians
    scale: float = 1.0  # from the measured numbers to that unit

    @property
    def name(self) -> str:
        """The title of the comparison."""
        return f"{self.title} vs {self.other}" if self.other else self.title

    def value(self, ours: float, other: float) -> float:
        """Return the value of a round that the bound applies to."""
        if self.compares == "ours":
            return ours
        return ours / other if self.compares == "ours / other" else other / ours

    def within(self, value: float, bound: float) -> bool:
        """Return True if a value is within a bound: a lower bound for `other / ours`, else an upper bound."""
        return value >= bound if self.compares == "other / ours" else value <= bound


MLP = "step of the MLP 64-128-128-10, B 64, CPU"
_CNN = "step of the small CNN, B 64 of 32x32, CPU"
_RESNET = "step of ResNet-18, B 512 of 32x32, bf16, GPU"
_NORMS = "norms of every layer each 50 steps"
_US = ("us/step", 1e6)

TARGETS = (
    Target("mlp", "step", MLP, "hand-written loop", "ours / other", 1.02, 0.92, *_US),
    Target("mlp_tuned", "step", MLP, "hand-written loop with index_select", "ours / other", None, None, *_US),
    Target("mlp_lightning", "step", MLP, "Lightning, as it comes", "other / ours", 2.8, 3.3, *_US),
    Target("mlp_lightning_minimal", "step", MLP, "Lightning, all off", "other / ours", 1.7, 2.0, *_US),
    Target("mlp_hf", "step", MLP, "Hugging Face Trainer", "other / ours", 2.2, 2.5, *_US),
    Target("mlp_accelerate", "step", MLP, "Accelerate + DataLoader", "other / ours", 4.0, 5.0, *_US),
    Target("mlp_tracked", "step", MLP, "Accelerate, each loss tracked", "other / ours", None, None, *_US),
    Target("mlp_timm", "step", MLP, "timm's train_one_epoch", "other / ours", 1.0, None, *_US),
    Target("mlp_unprobed", "step", MLP, "ours without probes", "ours / other", None, None, *_US),
    Target("cnn", "step", _CNN, "hand-written loop", "ours / other", 1.01, 1.00, *_US),
    Target("cnn_last", "step", _CNN, "hand-written loop with channels_last", "ours / other", None, None, *_US),
    Target("resnet18", "step", _RESNET, "hand-written loop", "ours / other", 1.01, 1.00, *_US),
    Target("mlp_probes", "probes", f"{_NORMS}: {MLP}", "without", "ours / other", 1.01, 1.005, *_US),
    Target("cnn_probes", "probes", f"{_NORMS}: {_CNN}", "without", "ours / other", 1.005, 1.001, *_US),
    Target("resnet18_probes", "probes", f"{_NORMS}: {_RESNET}", "without", "ours / other", 1.005, 1.001, *_US),
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


_NOT_MEASURED, NOT_ASKED = "not measured", "not asked for"


@dataclass(frozen=True)
class Result:
    """A target and its measurement: the numbers of each round, or the reason why there are none."""

    target: Target
    measured: Pairs | str

    @property
    def pairs(self) -> Pairs:
        """The numbers of each round."""
        return [] if isinstance(self.measured, str) else self.measured

    @property
    def values(self) -> Spread | None:
        """The spread of the value that the bound applies to."""
        return spread([self.target.value(*pair) for pair in self.pairs]) if self.pairs else None

    @property
    def verdict(self) -> str:
        """The comparison of the median with the bound."""
        target, values = self.target, self.values
        if values is None:
            return _NOT_MEASURED
        if target.bound is None:
            return "for information"
        if target.stretch is not None and target.within(values.median, target.stretch):
            return "stretch"
        return "pass" if target.within(values.median, target.bound) else "MISS"

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of both sides in the target's unit."""
        ours, other = (statistics.median(column) for column in zip(*self.pairs, strict=True))
        return ours * self.target.scale, other * self.target.scale

    def as_json(self) -> dict[str, Any]:
        """Return the content of the JSON file."""
        fields = {"reason": self.measured} if isinstance(self.measured, str) else {"pairs": self.measured}
        values = asdict(self.values) if self.values else {}
        return {**asdict(self.target), "verdict": self.verdict, **values, **_pooled(self), **fields}


def _pooled(result: Result) -> dict[str, float]:
    """Return the value over all rounds together, which includes rare costs."""
    if not result.pairs:
        return {}
    ours, other = (statistics.fmean(column) for column in zip(*result.pairs, strict=True))
    return {"pooled": result.target.value(ours, other)}
