"""Which hyperparameters mattered: how much worse a forest predicts unseen configurations when one is shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.comparing.groups import Value, rank
from runner.comparing.verdicts import Row

RUNS = 30  # below that it is noise
CONFIGURATIONS = 10
FOLDS = 5
SHUFFLES = 20
TREES = 200
LEAST_R2 = 0.1  # of unseen configurations; a forest that predicts nothing explains nothing


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What was found, or why there is nothing to find."""

    method: str
    r2: float | None = None  # of configurations that the forest has not seen
    drops: tuple[tuple[str, float, float], ...] = ()  # key, loss of R2 when it is shuffled, sd over folds and shuffles


def importance(rows: Sequence[Row]) -> Importance:
    """Return how much each hyperparameter that differs explains of the scores."""
    scored = [row for row in rows if row.scores]
    runs = sum(len(row.scores) for row in scored)
    if runs < RUNS or len(scored) < CONFIGURATIONS:
        needed = f"{RUNS} runs of {CONFIGURATIONS} configurations"
        return Importance(method=f"not computed: {runs} scored runs of {len(scored)} configurations, {needed} needed")
    method = (
        f"a random forest of {TREES} trees, fitted to {runs} runs of {len(scored)} configurations; loss of R2 on "
        f"configurations left out ({FOLDS} folds) when one of them is shuffled; adaptive samplers (tpe, gp) bias it"
    )
    return fitted(scored, method)


def fitted(scored: Sequence[Row], method: str) -> Importance:
    """Return the importance by cross-validation over configurations, so that seeds of one are never on both sides."""
    import numpy as np
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import GroupKFold

    keys = list(dict.fromkeys(key for row in scored for key in row.group.values))
    columns = table(scored, keys)
    x = np.array([line for row, line in zip(scored, columns, strict=True) for _ in row.scores])
    y = np.array([score for row in scored for score in row.scores.values()])
    unit = np.array([place for place, row in enumerate(scored) for _ in row.scores])
    r2, drops = [], []
    for train, left_out in GroupKFold(FOLDS, shuffle=True, random_state=0).split(x, y, unit):
        forest = RandomForestRegressor(TREES, random_state=0).fit(x[train], y[train])
        r2.append(forest.score(x[left_out], y[left_out]))
        shuffled = permutation_importance(forest, x[left_out], y[left_out], n_repeats=SHUFFLES, random_state=0)
        drops.append(shuffled.importances)
    mean = float(np.mean(r2))
    if not mean >= LEAST_R2:
        return Importance(method=f"{method}; R2 {mean:.2f}: it predicts nothing, so nothing is told", r2=mean)
    joined = np.concatenate(drops, axis=1)
    found = [(key, float(line.mean()), float(line.std())) for key, line in zip(keys, joined, strict=True)]
    return Importance(method=method, r2=mean, drops=tuple(sorted(found, key=lambda item: -item[1])))


def table(rows: Sequence[Row], keys: Sequence[str]) -> list[list[float]]:
    """Return each configuration's values as numbers: a number as it is, a word or nothing by its place in order."""
    codes: dict[str, list[Value | None]] = {
        key: sorted({row.group.values.get(key) for row in rows}, key=rank) for key in keys
    }
    return [[code(row.group.values.get(key), codes[key]) for key in keys] for row in rows]


def code(value: Value | None, values: Sequence[Any]) -> float:
    """Return a value as a number that trees can split on."""
    numeric = all(isinstance(each, float) for each in values)
    return float(value) if numeric and value is not None else float(values.index(value))
