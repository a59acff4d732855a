"""Runs that are made to show a symptom which no fault of the bank shows on its tuning nets, and close healthy ones."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.doctor.faults import Alteration, Fault
from benchmarks.doctor.mutants import Mutant
from benchmarks.doctor.plan import Case


def _shows(symptom: str, *overrides: str, data: Alteration = Alteration.WHOLE, mutant: Mutant = Mutant.NONE) -> Fault:
    return Fault(frozenset({symptom}) if symptom else frozenset(), overrides, data, mutant)


_NO_NORM = ("norm=none", "activation=leaky_relu", "probe.grad_norm.every=1")
# With so much weight decay the loss soon has nowhere to fall
_LINEAR = ("model=linear", "wd*100")
_DEEP = ("model.hidden=[48,48,48,48,48,48,48]", "norm=none", "activation=sigmoid", "scheduler=constant")
# By its name what a run has, and the symptom that it shows; an empty one: a near miss, which shows none of them
SHOWN: Mapping[str, Fault] = {
    "average_too_long": _shows("average_too_long", "lr*0.3", "average.decay=0.9999", "average.warmup=false"),
    "average_of_the_end": _shows("", "lr*0.3", "average.decay=0.9999", "average.warmup=true"),
    "data_bound": _shows("data_bound", mutant=Mutant.SLOW),
    "exploding": _shows("exploding", *_NO_NORM, "scheduler=triangular", "scheduler.peak=100%", "lr*10"),
    "not_exploding": _shows("", *_NO_NORM),
    "vanishing": _shows("vanishing", *_DEEP, "init=xavier"),
    "not_vanishing": _shows("", "model.hidden=[48,48,48]", "activation=tanh", "init=xavier", "scheduler=constant"),
    "flat_at_a_large_rate": _shows(
        "lr_high", *_LINEAR, "lr*6", "scheduler=constant", "data.batch_size=200", "steps=9000"
    ),
    "flat_at_a_usual_rate": _shows("plateau_decay", *_LINEAR, "scheduler=constant", "steps=1500"),
    "not_flat": _shows("", *_LINEAR, "steps=1500"),
    "noisy_late": _shows("noisy_late", "lr*10", "scheduler=constant", "average=none"),
    "not_noisy": _shows("", "average=none"),
    "overfit_rising": _shows("overfit_rising", "average=none", "lr*0.3", "scheduler=constant", data=Alteration.NOISY),
    "fine_tuned_slowly": Fault(frozenset(), ("transfer=fine_tune",), Alteration.INVERTED, pretrained=True),
}
_NETS = {
    "average_too_long": ("cnn_wide", "photos16"),
    "average_of_the_end": ("cnn_wide", "photos16"),
    "noisy_late": ("cnn", "shapes_large"),
    "not_noisy": ("cnn", "shapes_large"),
    "fine_tuned_slowly": ("cnn", "shapes_large"),
}


def shown_cases() -> list[Case]:
    """Return the runs, on nets and data sets of the tuning part."""
    return [Case("shown", name, *_NETS.get(name, ("mlp", "digits")), seed=500) for name in SHOWN]
