"""The decision table of step 7: which one change a finding of the doctor asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from runner.doctor.finding import Finding, Severity
from runner.protocol.context import Context

# Rows of the table, the first that matches counts: a name, its symptoms, and the keys that its change may touch
_ROWS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ("bad start", frozenset(("bad_init_plateau", "initial_loss", "activations_grow_or_shrink", "collapsed", "saturated",
                             "vanishing")), ("init", "norm", "activation")),
    ("learning rate", frozenset(("lr_very_high", "lr_high", "lr_low", "ratio_high", "ratio_low", "loss_rising",
                                 "unstable_early", "no_learning", "dead_relu", "exploding", "spikes", "noisy_late")),
     ("optim.lr", "scheduler", "clip", "average")),
    ("overfitting", frozenset(("overfit_rising", "few_examples", "overfit_gap", "overconfident")),
     ("optim.weight_decay", "augment", "mix", "regularizer", "loss")),
    ("train longer", frozenset(("train_longer",)), ("epochs", "steps")),
    ("plateau", frozenset(("plateau_decay",)), ("scheduler", "optim.lr")),
    ("early decay", frozenset(("decay_too_early", "warm_up_too_long")), ("scheduler",)),
    ("underfitting", frozenset(("underfit", "regularized_too_much", "decay_too_strong", "clip_too_much")),
     ("optim.weight_decay", "loss", "regularizer", "epochs", "steps", "model", "clip", "optim.lr")),
    ("statistics", frozenset(("bn_small_batch", "bn_stats_mismatch", "prior_collapse", "imbalanced")),
     ("norm", "data", "init", "loss")),
)  # fmt: skip
# Symptoms that no row names, such as those of plugins, come last and may change all but what a run is about
_NAMED = frozenset().union(*(symptoms for _, symptoms, _ in _ROWS))
_NOT_CHANGED = ("data.root", "data.name", "seed", "outputs", "name", "task", "device", "monitor", "test", "plugins")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change to try.

    Attributes:
        row: The row of the decision table.
        symptom: The finding that asks for it.
        why: What the finding says.
        words: The overrides.
    """

    row: str
    symptom: str
    why: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return the overrides as one text."""
        return " ".join(self.words)


def errors_in(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are certain: they send the user back to step 1."""
    return [each for each in findings if each.severity is Severity.ERROR]


def next_change(
    findings: Sequence[Finding], context: Context, tried: Collection[str], said: list[str]
) -> Change | None:
    """Return the first change that the table asks for and that was not tried, None if there is none.

    Args:
        findings: The findings of the present config, whose advice the command line accepts.
        context: Has the keys that the user has pinned; no change touches them.
        tried: The changes that were tried before, as texts.
        said: Gets a line for each finding whose change is not made.
    """
    for change, allowed in _asked_for(findings):
        touched = [word.lstrip("+~").partition("=")[0] for word in change.words]
        if change.text in tried or not all(map(allowed, touched)):
            continue
        if pinned := next((key for key in touched if key in context.pinned), None):
            said.append(f"{change.symptom}: {change.text} is not tried, because the command line sets {pinned}")
            continue
        return change
    return None


def _asked_for(findings: Sequence[Finding]) -> Iterator[tuple[Change, Callable[[str], bool]]]:
    """Yield the changes that findings advise, in the order of the table, with what says which keys one may touch."""
    for row, symptoms, keys in _ROWS:
        for finding in findings:
            for words in finding.advice if finding.id in symptoms else ():
                change = Change(row=row, symptom=finding.id, why=finding.why, words=words)
                yield change, partial(_is_below, allowed=keys)
    for finding in findings:
        for words in finding.advice if finding.id not in _NAMED else ():
            change = Change(row="other", symptom=finding.id, why=finding.why, words=words)
            yield change, lambda key: not _is_below(key, _NOT_CHANGED)


def _is_below(key: str, allowed: Sequence[str]) -> bool:
    """Return True if a key is one of those allowed, or below one."""
    return any(key == each or key.startswith(f"{each}.") for each in allowed)
