"""The findings that are shown, and their order."""

from __future__ import annotations

from collections.abc import Iterable

from runner.doctor.finding import Finding, Severity

# Rules that judge the shape of curves: where something is certainly wrong, what they say is only its consequence
_OF_CURVES = frozenset(
    {
        *("lr_high", "lr_low", "no_learning", "prior_collapse", "bad_init_plateau", "plateau_decay"),
        *("decay_too_early", "loss_rising", "spikes", "unstable_early", "noisy_late", "batch_too_small"),
        *("periodic", "train_longer", "trained_too_long", "overfit_rising", "overconfident", "overfit_gap"),
        *("underfit", "val_better", "val_too_small", "lr_very_high", "ratio_low", "ratio_high"),
        *("regularized_too_much", "val_at_chance", "val_leak", "few_examples", "bn_stats_mismatch", "imbalanced"),
    }
)
# A finding, and the ones that it explains
_EXPLAINS = {
    "no_learning": ("underfit", "prior_collapse", "val_too_small"),
    "overfit_rising": ("train_longer", "overfit_gap", "overconfident"),
    "train_longer": ("underfit",),
    "lr_very_high": ("no_learning", "underfit", "prior_collapse", "unstable_early", "val_too_small"),
    "lr_low": ("underfit", "ratio_low"),
    "clip_too_much": ("lr_low", "ratio_low", "underfit"),
    "regularized_too_much": ("underfit",),
    "val_at_chance": ("overfit_gap", "overconfident", "prior_collapse"),
    "few_examples": ("overfit_gap", "overconfident"),
    "initial_loss": ("unstable_early",),
}


# Confidence below which a finding is hidden by any that explains it
_HIDES = 0.65


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without those that another one explains, the worst and surest first.

    An error explains what the curves only suggest, whichever rule found it; errors are all kept.
    """
    found = list(findings)
    sure = {each.id: each.confidence for each in found}
    explained = {
        other for name in sure for other in _EXPLAINS.get(name, ()) if sure.get(other, 0.0) < max(sure[name], _HIDES)
    }
    if any(each.severity is Severity.ERROR for each in found):
        explained |= {each.id for each in found if each.severity is not Severity.ERROR and each.id in _OF_CURVES}
    kept = [each for each in found if each.id not in explained]
    return sorted(kept, key=lambda each: (each.severity.rank, -each.confidence, each.id))
