"""Each rule: a run that shows it, a near miss, and runs that are too odd to judge."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from sample_curves import (
    CHANCE,
    EPOCH,
    STEPS,
    cosine,
    evaluations,
    falling,
    lrs,
    measured,
    noise,
    rising,
    run,
)

import runner.doctor.symptoms  # noqa: F401
from runner.doctor import Finding, Severity
from runner.engine.equal_examples import EqualExamples
from runner.registry import find, names
from runner.status import Status

W, H, E = Severity.WARN, Severity.HINT, Severity.ERROR
RIPPLE = noise(1, STEPS, 0.01)


def _stuck(level=CHANCE):
    return np.full(STEPS, level) + noise(2, STEPS, 0.02)


def _noise(gradient, trace, count=40):
    """Return the two estimates of the noise scale, with the noise of their measurement."""
    return {"gradient_noise__squared_gradient": measured(gradient + noise(3, count, 0.3)),
            "gradient_noise__trace": measured(trace + noise(4, count, 0.1 * trace))}  # fmt: skip


def _equal(copies):
    return EqualExamples(val_in_train=copies, within_val=0, val=1000, train=5000)


def _line(end):
    """A loss that falls in a line."""
    return np.linspace(CHANCE, end, STEPS) + noise(3, STEPS, 0.02)


def _plateau(length):
    """A loss that stays at its start and then falls at once."""
    fall = np.where(np.arange(STEPS) < length, CHANCE, 0.3 + (CHANCE - 0.3) * np.exp(-(np.arange(STEPS) - length) / 20))
    return fall + noise(4, STEPS, 0.005)


def _bump(height, width=EPOCH):
    """A loss that rises in the first steps and then falls."""
    found = falling() + RIPPLE
    found[5 : 5 + width] = CHANCE + height
    return found


def _with_spikes(height, places):
    found = falling() + noise(5, STEPS, 0.02)
    found[list(places)] += height
    return found


def _wave(size):
    """A loss with one pattern in each epoch."""
    pattern = np.random.default_rng(6).normal(size=EPOCH) * size
    return falling(rate=40) + np.tile(pattern, STEPS // EPOCH) + noise(7, STEPS, 0.05)


def _last_batch(size):
    """A loss whose last batch of each epoch is small, so that its loss varies more."""
    found = falling(rate=40) + noise(7, STEPS, 0.05)
    found[EPOCH - 1 :: EPOCH] += size
    return found


def _two_rates(before_end, after_slope, drop=180):
    """A loss that falls in a line to a level at a drop of the rate, and then in a slower line."""
    values = np.concatenate(
        [np.linspace(CHANCE, before_end, drop), before_end - 0.1 - after_slope * np.arange(STEPS - drop)]
    )
    return values + RIPPLE


def _drop_rate(drop=180):
    return lrs(np.where(np.arange(STEPS) < drop, 0.1, 0.01))


def _worse(by):
    """Accuracies that reach 0.9 and then fall in a line."""
    return evaluations(np.concatenate([np.linspace(0.5, 0.9, 10), np.linspace(0.9, 0.9 - by, 20)]))


def _to(top):
    """Accuracies that rise to a level."""
    return evaluations(rising(top=top))


def _lower(lr, end):
    """A trial with another learning rate, in the same sweep."""
    return run(scheduler="constant", optim__lr=lr, train__loss=falling(low=end, rate=80) + RIPPLE)


def _gradients(norms):
    """Layers whose weights move by weight decay alone, but for the last one, and their gradients' norms."""
    decay = 0.1 * 5e-4 / (1 - 0.9)
    ratios = {f"ratio__l2/{x}": measured([decay] * 19) for x in "abcd"} | {"ratio__l2/e": measured([0.1] * 19)}
    return ratios | {f"grad_norm__{x}": measured([each] * 19) for x, each in zip("abcde", norms, strict=True)}


STEPPED = {"scheduler": "multistep", "train__lr": _drop_rate()}
FLAT = {"scheduler": "constant", "train__loss": falling(rate=80) + RIPPLE}
RARE = {"class_shares": (0.91, *(0.01,) * 9)}

# (rule, changes of a healthy run that shows it, its severity, changes of one that just does not)
TABLE = [
    ("lr_very_high", {"train__loss": np.linspace(1.8, 4, STEPS)}, W, {"train__loss": np.linspace(2, 2.6, STEPS)}),
    ("lr_very_high", {"train__loss": np.append(falling(600), np.full(300, 1.6))}, W,
     {"train__loss": np.append(falling(600), np.full(300, 1.1))}),
    ("lr_very_high", {"train__loss": np.append([CHANCE] * 10, np.linspace(4, CHANCE, STEPS - 10))}, W,
     {"train__loss": np.append([CHANCE] * 10, np.linspace(4, 2.0, STEPS - 10))}),

        ("lr_high", FLAT | {"ratio__l2/_global": measured([0.05] * 19)}, H,
      FLAT | {"ratio__l2/_global": measured([0.02] * 19)}),
    ("lr_high", FLAT | {"siblings": (_lower(0.01, 0.2),)}, W, FLAT | {"siblings": (_lower(0.01, 0.3),)}),
    ("lr_low", {"train__loss": _line(2.1), "scheduler": "constant", "ratio__l2/_global": measured([6e-4] * 19)}, H,
     {"train__loss": _line(1.8), "scheduler": "constant", "ratio__l2/_global": measured([6e-4] * 19)}),
    ("lr_low", {"train__loss": _line(2.0), "scheduler": "constant", "ratio__l2/_global": measured([1e-4] * 19)}, H,
     {"train__loss": _line(1.0), "scheduler": "constant", "ratio__l2/_global": measured([1e-4] * 19)}),
    ("unstable_early", {"train__loss": _bump(5.0)}, H, {"train__loss": _bump(4.0)}),
    ("no_learning", {"train__loss": _stuck()}, W, {"train__loss": _stuck(CHANCE * 0.97)}),
    ("bad_init_plateau", {"train__loss": _plateau(300)}, H, {"train__loss": _plateau(90)}),
    ("bad_init_plateau", {"train__loss": _plateau(300), "activations__d/std": measured([0.01] * 19)}, W,
     {"train__loss": _line(0.3), "activations__d/std": measured([0.01] * 19)}),
    ("plateau_decay", FLAT, H, FLAT | {"scheduler": "cosine"}),
    ("loss_rising", {"train__loss": falling(rate=80) + np.linspace(0, 0.5, STEPS) ** 2 + RIPPLE}, W,
     {"train__loss": falling(rate=80) + np.linspace(0, 0.15, STEPS) ** 2 + RIPPLE}),
    ("spikes", {"train__loss": _with_spikes(2.0, (427, 572, 720))}, W,
     {"train__loss": _with_spikes(0.1, (427, 572, 720))}),
    ("spikes", {"train__loss": _with_spikes(2.0, (427, 572))}, H,
     {"train__loss": _with_spikes(2.0, range(400, 900))}),
    ("spikes", {"train__loss": _with_spikes(2.0, (427, 572))}, H, {"train__loss": _with_spikes(2.0, (427, 569))}),
    ("spikes", {"train__loss": _with_spikes(2.0, (400,)),
     "grad_norm___global": measured([1.0] * 8 + [50] + [1] * 10)}, H,
     {"train__loss": _with_spikes(2.0, (400,))}),
    ("periodic", {"train__loss": _wave(0.1)}, H, {"train__loss": _wave(0.02)}),
    ("periodic", {"train__loss": _wave(0.3)}, W, {"train__loss": _last_batch(1.0)}),

        ("decay_too_early", STEPPED | {"train__loss": _two_rates(1.2, 1e-4)}, H,
      STEPPED | {"train__loss": _two_rates(2.2, 2e-3)}),
    ("warm_up_too_long", {"scheduler__warmup": "50%", "train__lr": lrs([0, 0.1, 0])}, H,
     {"scheduler__warmup": "10%", "train__lr": lrs([0, 0.1, *[0.1 - i / 90 for i in range(10)]])}),
    ("ratio_low", {"ratio__l2/_global": measured([1e-4] * 19)}, H, {"ratio__l2/_global": measured([4e-4] * 19)}),
    ("ratio_low", {"ratio__l2/_global": measured([1e-6] * 19)}, W,
     {"ratio__l2/_global": measured([1e-6] * 19), "weight_norm__a": measured([1.0, 5.0])}),
    ("ratio_high", {"ratio__l2/_global": measured([9e-2] * 19)}, H, {"ratio__l2/_global": measured([7e-2] * 19)}),
    ("ratio_high", {"ratio__l2/_global": measured([5e-2] * 19), "train__loss": _stuck(2.0)}, H,
     {"ratio__l2/_global": measured([5e-2] * 19), "train__loss": _stuck(1.5)}),
    ("ratio_high", {"ratio__l2/_global": measured([0.2] * 19)}, W,
     {"ratio__l2/_global": measured([0.2, *[0.01] * 18])}),
    ("clip_too_much", {"clip": 0.5}, W, {"clip": 2.0}),
    ("clip_too_much", {"clip": 0.5}, W, {"clip": 0.5, "clip_by": "value"}),
    ("decay_too_strong", {"optim__weight_decay": 0.5}, H, {"optim__weight_decay": 0.003}),
    ("decay_too_strong", {"optim__weight_decay": 0.5, "train__loss": _stuck(1.5)}, W, {"optim__weight_decay": 0.0}),
    ("dead_relu", {"activations__c/dead": measured(np.linspace(0, 0.7, 19))}, H,
     {"activations__c/dead": measured(np.linspace(0, 0.35, 19))}),
    ("dead_relu", {"activations__c/dead": measured(np.linspace(0, 1, 19).clip(0, 0.95))}, H,
     {"activations__c/dead": measured([0.5] * 19)}),
    ("dead_relu", {"activations__c/dead": measured([0.1, *[1.0] * 18])}, W,
     {"activations__c/dead": measured([0.1, *[1.0] * 18]), "activation__name": "gelu"}),
    ("saturated", {"activations__b/saturated": measured([0.4] * 19)}, W,
     {"activations__b/saturated": measured([0.05] * 19)}),
    ("saturated", {"activations__b/saturated": measured(np.linspace(0, 0.3, 19)), "train__loss": _stuck(1.5)}, H,
     {"activations__b/saturated": measured(np.linspace(0, 0.3, 19))}),
    ("saturated", {"activations__b/saturated": measured([0.2] * 19)}, H,
     {"activations__b/saturated": measured(np.linspace(0, 0.1, 19)), "train__loss": _stuck(1.5)}),
    ("collapsed", {"activations__d/std": measured([0.03] * 19)}, W, {"activations__d/std": measured([0.1] * 19)}),
    ("collapsed", {f"activations__{x}/std": measured([0.0] * 19) for x in "abcd"}, W,
     {f"activations__{x}/std": measured([0.1] * 19) for x in "abcd"}),
    ("collapsed", {f"activations__{x}/std": measured([0.001] * 19) for x in "abcd"}, H,
     {f"activations__{x}/std": measured([0.1] * 19) for x in "abcd"}),
    ("collapsed", {"activation__name": "sigmoid", **{f"activations__{x}/std": measured([0.03] * 19) for x in "abcd"}},
     H,
     {"activation__name": "sigmoid", **{f"activations__{x}/std": measured([0.2] * 19) for x in "abcd"}}),
    ("collapsed", {"activations__d/std": measured([0.6, *[0.01] * 18])}, H,
     {"activations__d/std": measured([0.01, *[0.6] * 18])}),
    ("activations_grow_or_shrink", {f"activations__{x}/std": measured([0.6 / 3**i] * 3) for i, x in enumerate("abcd")}
     | {"model__name": "mlp"}, W, {f"activations__{x}/std": measured([0.6 / 1.2**i] * 3) for i,
      x in enumerate("abcd")}),

        ("activations_grow_or_shrink", {f"activations__{x}/std": measured([0.6 / 1.8**i] * 3) for i,
      x in enumerate("abcd")}, H,
     {}),
    ("vanishing", _gradients([1e-5, 1e-4, 1e-3, 1e-2, 1e-1]), W, _gradients([1e-5, 1e-4, 1e-5, 1e-2, 1e-1])),
    ("vanishing", {"ratio__l2/a": measured([1e-7] * 19)}, W, {"ratio__l2/a": measured([1e-7] * 18 + [1e-4])}),
    ("exploding", {"grad_norm___global": measured([1.0] * 12 + [500.0] * 7)}, W,
     {"grad_norm___global": measured([1.0] * 12 + [500.0, 1, 500, 1, 500, 1, 1])}),
    ("layer_frozen", {"ratio__l2/a": measured([0.0] * 19)}, E, {"ratio__l2/a": measured([0.0] * 17 + [1e-9, 0])}),
    ("layer_frozen", {"ratio__l2/a": measured([0.0] * 19), "grad_norm__a": measured([0.0] * 19)}, E,
     {"ratio__l2/a": measured([0.0] * 19), "ratio__l2/_global": measured([0.0] * 19)}),
    ("train_longer", {"scheduler": "constant", "val__accuracy": evaluations(np.linspace(0.1, 0.8, 30))}, W,
     {"scheduler": "constant", "val__accuracy": evaluations(np.linspace(0.78, 0.8, 30))}),
    ("train_longer", {"scheduler": "constant", "val__loss": evaluations(np.linspace(2.3, 1.0, 30))}, H,
     {"val__loss": evaluations(np.linspace(2.3, 1.0, 30))}),
    ("train_longer", {"val__accuracy": evaluations(np.linspace(0.1, 0.8, 30))}, H,
     {"val__accuracy": evaluations([*np.linspace(0.1, 0.8, 20), *np.linspace(0.8, 0.7, 10)])}),
    ("trained_too_long", {"val__accuracy": evaluations([0.8, 0.91, *[0.9] * 28])}, H,
     {"val__accuracy": evaluations([0.8, 0.91, *[0.7] * 28])}),
    ("trained_too_long", {"val__accuracy": evaluations([0.8, 0.91, *[0.9] * 28])}, H,
     {"val__accuracy": evaluations([0.8, 0.91, *[0.907] * 28])}),
    ("noisy_late", {"val__accuracy": evaluations([*rising(24), *[0.9, 0.8] * 3])}, W,
     {"val__accuracy": evaluations([*rising(24), *[0.9, 0.88] * 3])}),
    ("val_too_small", {"val_examples": 100}, H, {"val_examples": 1000}),
    ("prior_collapse", {"val__accuracy": evaluations([0.1] * 30)}, H,
     {"val__accuracy": evaluations([*[0.1] * 29, 0.101])}),
    ("bn_stats_mismatch", {"train_eval__loss": evaluations([2.5] * 30)}, W,
     {"train_eval__loss": evaluations([2.5] * 30), "norm__name": "group"}),
    ("bn_stats_mismatch", {"train_eval__loss": evaluations([1.0] * 30)}, H,
     {"train_eval__loss": evaluations([0.4] * 30)}),
    ("overfit_rising", {"val__accuracy": _worse(0.2)}, W, {"val__accuracy": _worse(0.02)}),
    ("overfit_rising", {"val__accuracy": _worse(0.2)}, W,
     {"val__accuracy": _worse(0.2), "train_eval__accuracy": _worse(0.2)}),
    ("overconfident", {"val__loss": evaluations([*np.linspace(2, 0.5, 10), *np.linspace(0.5, 1.5, 20)])}, H,
     {"val__loss": evaluations([*np.linspace(2, 0.5, 10), *np.linspace(0.5, 1.0, 20)])}),
    ("overfit_gap", {"train_eval__accuracy": evaluations(rising(top=1.0)), "val__accuracy": _to(0.7)},
     H, {"train_eval__accuracy": evaluations(rising(top=1.0)), "val__accuracy": _to(0.8)}),
    ("overfit_gap", {"train_eval__accuracy": evaluations(rising(top=1.0)), "val__accuracy": _to(0.82),
     "val__loss": evaluations([*np.linspace(2, 0.5, 10), *np.linspace(0.5, 0.6, 20)])}, H,
     {"train_eval__accuracy": evaluations(rising(top=1.0)), "val__accuracy": _to(0.82)}),
    ("few_examples", {"train_examples": 300, "train_eval__accuracy": evaluations([1.0] * 30),
     "val__accuracy": evaluations([0.5] * 30)}, H,
     {"train_examples": 600, "train_eval__accuracy": evaluations([1.0] * 30),
      "val__accuracy": evaluations([0.5] * 30)}),
    ("few_examples", {"train_examples": 100, "train_eval__accuracy": evaluations([1.0] * 30),
     "val__accuracy": evaluations([0.5] * 30)}, W,
     {"train_examples": 100, "train_eval__accuracy": evaluations([1.0] * 30),
      "val__accuracy": evaluations([0.95] * 30)}),
    ("underfit", {"train_eval__accuracy": evaluations([0.2, *[0.72] * 29]), "val__accuracy": evaluations([0.7] * 30)},
     H,
     {"train_eval__accuracy": evaluations(rising(top=0.75, rate=3)),
      "val__accuracy": evaluations(rising(top=0.75, rate=3) - 0.02)}),
    ("underfit", {"train_eval__accuracy": evaluations(rising(top=0.91)), "model__name": "mlp",
     "model__hidden": [64, 2]}, H,
     {"train_eval__accuracy": evaluations(rising(top=0.91)), "model__name": "mlp", "model__hidden": [64, 64]}),
    ("val_better", {"train_eval__accuracy": evaluations(rising(top=0.8))}, W,
     {"train_eval__accuracy": evaluations(rising(top=0.88))}),
    ("val_at_chance", {"val__accuracy": evaluations([0.09, 0.11] * 15)}, W,
     {"val__accuracy": evaluations([0.09, 0.15] * 15)}),
    ("val_at_chance", {"val__accuracy": evaluations([0.09, 0.11] * 15), "val__loss": evaluations([2.35] * 30),
     "train_eval__accuracy": evaluations([0.13] * 30), "train_eval__loss": evaluations(np.linspace(2.3, 2.2, 30))}, H,
     {"val__accuracy": evaluations([0.09, 0.11] * 15), "val__loss": evaluations([2.25] * 30),
      "train_eval__accuracy": evaluations([0.13] * 30), "train_eval__loss": evaluations(np.linspace(2.3, 2.2, 30))}),
    ("val_leak", {"train_eval__loss": evaluations([0.02] * 30), "val__loss": evaluations([0.021] * 30)}, H,
     {"train_eval__loss": evaluations([0.02] * 30), "val__loss": evaluations([0.04] * 30)}),
    ("val_leak", {"equal_examples": _equal(11), "data__duplicates": "ignore"}, E, {"equal_examples": _equal(1)}),
    ("val_leak", {"equal_examples": _equal(10), "data__duplicates": "ignore"}, H, {"equal_examples": _equal(1)}),
    ("initial_loss", {"train__loss": np.append([5.0], falling(STEPS - 1))}, W,
     {"train__loss": np.append([3.0], falling(STEPS - 1))}),
    ("bn_small_batch", {"data__batch_size": 2}, H, {"data__batch_size": 8}),
    ("bn_small_batch", {"data__batch_size": 1}, W, {"data__batch_size": 1, "norm__name": "layer"}),
    ("regularized_too_much", {"loss__label_smoothing": 0.9, "train__loss": _stuck(2.2)}, W,
     {"loss__label_smoothing": 0.1, "train__loss": _stuck(2.2)}),
    ("regularized_too_much", {"loss__label_smoothing": 0.6, "train__loss": _stuck(1.0)}, H,
     {"loss__label_smoothing": 0.6, "train__loss": _stuck(0.5)}),
    ("regularized_too_much", {"augment": {"random_erasing": {"p": 1.0, "scale": [0.5, 0.9]}},
     "train__loss": _stuck(2.2)}, W,
     {"augment": {"random_erasing": {"p": 0.5, "scale": [0.02, 0.4]}}, "train__loss": _stuck(2.2)}),
    ("regularized_too_much", {"augment": {"randaugment": {"magnitude": 30.0}}, "train__loss": _stuck(2.2)}, W,
     {"augment": {"randaugment": {"magnitude": 9.0}}, "train__loss": _stuck(2.2)}),
    ("regularized_too_much", {"regularizer": {"dropout": {"p": 0.5}}, "train__loss": _stuck(1.5)}, H,
     {"train__loss": _stuck(1.5)}),
    ("data_bound", {"time__data_wait": measured([0.4] * 5), "time__step_ms": measured([100.0] * 5)}, H,
     {"time__data_wait": measured([0.4] * 5), "time__step_ms": measured([10.0] * 5)}),
    ("fine_tuned_too_fast", {"init_from": "weights.safetensors", "ratio__l2/a": measured([0.01] * 19)}, H,
     {"init_from": None, "ratio__l2/a": measured([0.01] * 19)}),

        ("momentum_too_high", {"optim__momentum": 0.999}, H, {"optim__momentum": 0.99}),
    ("momentum_too_high", {"optim__momentum": 0.999, "train__loss": _stuck(1.5)}, W,
     {"optim__momentum": 0.9, "train__loss": _stuck(1.5)}),
    ("average_too_long", {"average__decay": 0.9999, "average__warmup": False,
     "train_eval__loss": evaluations([0.6] * 30)}, W,
     {"average__decay": 0.9999, "average__warmup": True, "train_eval__loss": evaluations([0.6] * 30)}),
    ("imbalanced", RARE | {"val__accuracy": evaluations([0.91] * 30)}, H,
      RARE | {"val__accuracy": evaluations([0.95] * 30)}),
    ("scaler_skips", {"train__skipped_steps": measured([9] + [6] * 18)}, W,
     {"train__skipped_steps": measured([1000] + [2] * 18)}),
    ("batch_too_small", _noise(1.0, 20_000.0), H, _noise(1.0, 500.0)),
    ("nonfinite", {"train__loss": np.append(falling(STEPS - 1), np.nan)}, E, {}),
]  # fmt: skip
IDS = [f"{i}-{row[0]}" for i, row in enumerate(TABLE)]


@pytest.mark.parametrize(("rule", "changes", "severity", "near_miss"), TABLE, ids=IDS)
def test_a_rule_finds_its_symptom_and_no_near_miss(rule, changes, severity, near_miss):
    found = find("symptom", rule)(run(**changes))
    assert isinstance(found, Finding)
    assert (found.id, found.severity) == (rule, severity)
    assert find("symptom", rule)(run(**near_miss)) is None


@pytest.mark.parametrize("row", TABLE, ids=IDS)
def test_a_finding_says_what_it_rests_on(row):
    rule, changes, severity, _ = row
    found = find("symptom", rule)(run(**changes))
    assert all(np.isfinite(value) for value in found.evidence.numbers.values()) or rule == "nonfinite"
    assert 1 <= found.evidence.steps[0] <= found.evidence.steps[1] <= STEPS
    assert set(found.evidence.tags) <= {*run(**changes).tags(), "grad_norm/_global"}
    assert 0 < found.confidence <= 1
    assert found.why.endswith((".", "; ")) and found.source
    hints = ("may", "might", "consistent with", "suggest", "usually")
    assert severity is not H or any(word in found.why for word in hints)


def test_every_rule_has_a_row():
    own = {name for name in names("symptom") if find("symptom", name).__module__.startswith("runner.")}
    assert {row[0] for row in TABLE} == own
    assert len(own) >= 38


def test_no_rule_has_knobs():
    for name in names("symptom"):
        assert list(inspect.signature(find("symptom", name)).parameters) == ["history"]


ODD = {
    "nothing logged": run(**{tag.replace("/", "__", 1): None for tag in run().tags()}),
    "one epoch": run(
        count=EPOCH, train__loss=falling(EPOCH), val__accuracy=evaluations([0.5], EPOCH), train__lr=lrs([0.1], EPOCH)
    ),
    "one step": run(count=1, **{tag.replace("/", "__", 1): measured([1.0], 1) for tag in run().tags()}),
    "unknown data": run(classes=0, train_examples=0, val_examples=0, class_shares=()),
    "constant": run(**{tag.replace("/", "__", 1): measured(np.full(STEPS, 0.5)) for tag in run().tags()}),
    "all nan": run(**{tag.replace("/", "__", 1): measured(np.full(STEPS, np.nan)) for tag in run().tags()}),
    "some nan": run(**{tag.replace("/", "__", 1): measured([0.5, np.nan] * 20) for tag in run().tags()}),
    "zeros": run(**{tag.replace("/", "__", 1): measured(np.zeros(STEPS)) for tag in run().tags()}),
    "other loss": run(loss={"name": "of_a_plugin"}),
    "other optimizer": run(optim={"name": "of_a_plugin"}),
    "failed": replace(run(), facts=replace(run().facts, status=Status.FAILED)),
}


@pytest.mark.parametrize("rule", names("symptom"))
@pytest.mark.parametrize("odd", ODD, ids=lambda name: name.replace(" ", "-"))
def test_no_rule_fails_on_odd_runs(rule, odd):
    found = find("symptom", rule)(ODD[odd])
    assert found is None or found.id == rule


@pytest.mark.parametrize("odd", ["nothing logged", "one epoch", "unknown data", "other loss", "other optimizer"])
def test_runs_that_show_too_little_have_no_warning(odd):
    found = [find("symptom", rule)(ODD[odd]) for rule in names("symptom")]
    assert [each.id for each in found if each and each.severity is not H] == []


def test_the_healthy_run_of_the_table_has_no_finding():
    assert [rule for rule in names("symptom") if find("symptom", rule)(run())] == []
    assert [rule for rule in names("symptom") if find("symptom", rule)(run(scheduler="constant"))] == []


@pytest.mark.parametrize("count", [150, 199])
def test_no_curve_of_a_short_run_is_judged(count):
    short = run(count=count, train__loss=np.linspace(CHANCE, 9, count), train__lr=cosine(count))
    found = [rule for rule in ("lr_very_high", "no_learning", "loss_rising", "lr_low", "plateau_decay", "ratio_high")
             if find("symptom", rule)(short)]  # fmt: skip
    assert found == []
