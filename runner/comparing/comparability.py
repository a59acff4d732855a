"""Limits of a comparison: errors for scores with different meanings, warnings above the table, notes below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from runner.comparing.groups import Group
from runner.comparing.left_out import left_out_runs
from runner.comparing.runs import Found, Run
from runner.comparing.score_meaning import SCORES, shared_scores
from runner.comparing.statistics import expected_lead_of_best
from runner.comparing.verdicts import MIN_SEEDS, SCORE_FORMAT, ComparedRow, Criterion
from runner.errors import ConfigError
from runner.keys import knob_marks, settings_with
from runner.printing import counted
from runner.roles import Aspect, Marks, Role

# Most data sets that the error lists
_SHOWN = 3
# With this many configurations or more, the best one leads noticeably by chance
_MANY = 5
# With this many seeds or more, the t-interval hardly depends on normality
_RELIABLE = 5
# Correlation below which pairing by seed gains nothing
_WEAK = 0.2


def _data_of(run: Run, *, by_content: bool) -> tuple[tuple[str, str], ...]:
    """Return what decides which examples a run is scored on: settings and contents, or settings and paths."""
    data: dict[str, Any] = run.config["data"]
    marks = knob_marks("data", data, run.config)
    chosen = {key: str(value) for key, value in data.items() if _chooses_examples(marks.get(key), by_content)}
    if by_content and run.fingerprint:
        part = run.fingerprint.parts["val"]
        chosen["validation examples"] = f"{part.listing[:4]}{part.content[:4]}"
    return tuple(sorted(chosen.items()))


def _chooses_examples(marks: Marks | None, by_content: bool) -> bool:
    """Return True if a knob of the data set decides which examples are scored; of known contents no path does."""
    if marks is None:
        return True
    trains_only = marks.role is not Role.EXPERIMENT or Aspect.TRAINING in marks.aspects
    return not trains_only or (Aspect.EXAMPLES in marks.aspects and not by_content)


def check_same_data(runs: Sequence[Run]) -> None:
    """Raise ConfigError if the runs are not scored on the same examples."""
    by_content = all(run.fingerprint and "val" in run.fingerprint.parts for run in runs)
    found = Counter(_data_of(run, by_content=by_content) for run in runs)
    if len(found) > 1:
        shared = set.intersection(*map(set, found))
        words = [
            f"{' '.join('='.join(item) for item in data if item not in shared)}: {counted(count, 'run')}"
            for data, count in found.most_common(_SHOWN)
        ]
        raise ConfigError(f"runs: the runs use different data ({'; '.join(words)}); their scores cannot be compared")


def find_warnings(groups: Sequence[Group], found: Found, criterion: Criterion) -> list[str]:
    """Return the warnings above the table: unequal conditions, and runs that it leaves out."""
    runs = [run for group in groups for run in group.runs]
    lines = [
        *_unequal(runs, settings_with(Aspect.BUDGET), "budgets differ", "more training alone may explain a difference"),
        *_unequal(
            runs,
            settings_with(Aspect.SELECTION),
            "selection rules differ",
            "more validations give a better best",
        ),
        *_unequal(runs, ("precision",), "precision differs", "this alone changes scores"),
        *_left_out(runs),
        *_conditions(runs),
        *left_out_runs(groups, found, criterion),
    ]
    if criterion.at == "best":
        lines.append(
            "scores are the best validation of each run: selected and reported on the same examples, so optimistic"
        )
    return lines


def _left_out(runs: Sequence[Run]) -> list[str]:
    """Return a warning if the results of some runs measure the loss in another way."""
    both = set(SCORES) == set(shared_scores(runs))
    return [] if both else ["val/loss is left out: results of schema 1 hold val/nll in its place"]


def _unequal(runs: Sequence[Run], keys: Sequence[str], what: str, why: str) -> list[str]:
    """Return a warning for each key whose value differs between runs."""
    lines = []
    for key in keys:
        values = Counter(str(run.config.get(key)) for run in runs)
        if len(values) > 1:
            words = ", ".join(f"{value} ({counted(count, 'run')})" for value, count in values.most_common(4))
            lines.append(f"{what}: {key} is {words}; {why}")
    return lines


def _conditions(runs: Sequence[Run]) -> list[str]:
    """Return a warning for each condition outside the config that differs between runs."""
    lines = []
    for what, given in (
        ("code", _commit),
        ("torch", _torch_version),
        ("device", _device),
        ("numerics", _numerics),
        ("data", _data),
    ):
        values = Counter(map(given, runs))
        if len(values) > 1:
            words = ", ".join(f"{value} ({counted(count, 'run')})" for value, count in values.most_common(4))
            lines.append(f"{what} differs: {words}")
    return lines


def _commit(run: Run) -> str:
    """Return the git commit of a run, with a + if files had uncommitted changes."""
    for where in ("git_package", "git"):
        if isinstance(git := run.environment.get(where), dict):
            return f"{str(git.get('commit'))[:8]}{'+' if git.get('dirty') else ''}"
    return "unknown"


def _torch_version(run: Run) -> str:
    """Return the torch version of a run."""
    versions = run.environment.get("versions")
    return str(versions.get("torch")) if isinstance(versions, dict) else "unknown"


def _device(run: Run) -> str:
    """Return the device of a run."""
    return str(run.environment.get("device", "unknown"))


def _numerics(run: Run) -> str:
    """Return the numerics versions that a run was trained with, if there were several."""
    return " then ".join(map(str, run.result.numerics or ())) or "one version"


def _data(run: Run) -> str:
    """Return the data that a run was trained on if they changed on the way, or if it does not say which."""
    if not run.result.data:
        return "without a fingerprint"
    return " then ".join(each[:8] for each in run.result.data) if len(run.result.data) > 1 else "one set in a run"


def find_notes(rows: Sequence[ComparedRow], criterion: Criterion) -> list[str]:
    """Return the notes below the table: what is compared, how many seeds there are, and what they can detect."""
    others = [row for row in rows if not row.is_baseline]
    lines = [_description(criterion)]
    counts = [len(row.differences) for row in others]
    if any(len(row.scores) == 1 for row in rows):
        lines.append("single runs: their uncertainty is unknown, so there is no verdict")
    if any(MIN_SEEDS <= count < _RELIABLE for count in counts):
        lines.append("with 3 or 4 seeds the intervals rely on normally distributed differences; use 5 or more")
    tested = [count for count in counts if MIN_SEEDS <= count < 6]
    if tested:
        lines.append(
            f"with {max(tested)} seeds the exact permutation test cannot go below p = {2 / 2 ** max(tested):.4g}: "
            "significance here comes from the t-test alone"
        )
    if any(abs(row.r) < _WEAK for row in others):
        lines.append(
            "paired scores barely correlate (|r| < .2): pairing gains nothing; the files have Welch's interval"
        )
    if sum(row.p_holm == row.p_holm for row in others) > 1:
        lines.append(
            f"p is adjusted for {sum(row.p_holm == row.p_holm for row in others)} comparisons (Holm); intervals are not"
        )
    return [*lines, *_power_note(others), *_selection_note(rows, criterion)]


def _power_note(others: Sequence[ComparedRow]) -> list[str]:
    """Return a note on the power, without which "not distinguishable" is meaningless."""
    seen = [row.detectable for row in others if row.detectable == row.detectable]
    if not seen:
        return []
    ends = " to ".join(dict.fromkeys(f"{end:{SCORE_FORMAT}}" for end in (min(seen), max(seen))))
    pairs = sorted({len(row.differences) for row in others if row.detectable == row.detectable})
    counts = f"{pairs[0]}" + (f" to {pairs[-1]}" if len(pairs) > 1 else "")
    return [f"with {counts} seeds a true difference of {ends} is detected with 80 % power, a smaller one less often"]


def _description(criterion: Criterion) -> str:
    """Return a note on what is compared."""
    way = "larger" if criterion.larger_is_better else "smaller"
    which = "the last validation" if criterion.at == "last" else "the best validation"
    return f"{criterion.metric} of {which} ({way} is better); differences are paired by seed, with 95 % t-intervals"


def _selection_note(rows: Sequence[ComparedRow], criterion: Criterion) -> list[str]:
    """Return a note on how far the best of many configurations leads by chance (the winner's curse)."""
    scored = [row for row in rows if row.scores]
    if len(scored) < _MANY:
        return []
    line = f"the best of {len(scored)} configurations was selected by this score: expect a worse one on new examples"
    errors = [row.sd**2 / len(row.scores) for row in scored if row.sd == row.sd]
    if errors:
        lead = expected_lead_of_best(len(scored)) * (sum(errors) / len(errors)) ** 0.5
        line += f"; of equal ones the best leads the mean by {lead:{SCORE_FORMAT}} by chance"
    return [line]


def count_test_reads(runs: Sequence[Run]) -> list[str]:
    """Return a note on how often these runs read the test split, empty if they did not."""
    reads = sum(run.result.test_reads for run in runs)
    most = max((run.result.test_reads for run in runs), default=0)
    if not reads:
        return []
    often = f", one of them {most} times" if most > 1 else ""
    return [f"the test split was read {counted(reads, 'time')} by these runs{often}; nothing here was selected by it"]
