"""Step 4: a coarse search over learning rate and weight decay, in trainings of a few epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from runner.protocol.coarse_grid import Grid, grid_around
from runner.protocol.coarse_words import Baseline, criteria_of, headline_of, rows_of
from runner.protocol.context import Context
from runner.protocol.outcome import Advice, Level, StepResult
from runner.protocol.trials import (
    Metric,
    Trial,
    averaged,
    ranked,
    seconds_of,
    seed_sd,
    train_all,
    trial_overrides,
    write_trials,
)

# Extensions of the grid at its edges, and candidates for step 5
_EXTENSIONS, _CANDIDATES = 2, 3
# Fewest points that a small budget leaves of a quasi-random search
_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class Coarse:
    """Step 4. The attributes are the knobs of `task=coarse`."""

    epochs: float
    mode: Literal["grid", "qmc", "random"]
    lr_factors: tuple[float, ...]
    weight_decays: tuple[float, ...] | None
    points: int
    seeds: int
    metric: Metric
    number: int = 4
    name: str = "coarse"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "knobs": vars(self)}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return the whole grid, or the fewest points of another search."""
        grid = self._grid(context)
        count = len(grid.points()) if self.mode == "grid" else min(self.points, _FEWEST)
        return count * self.seeds, seconds_of(context, count * self.seeds, self.epochs)

    def run(self, context: Context) -> StepResult:
        """Train each point, extend the grid where the best is on an edge, and rank."""
        began, used = time.monotonic(), context.budget.used
        trials, grid, edges, extended = self._search(context)
        best = ranked(averaged(trials), self.metric)
        write_trials(context, trials, self.metric)
        counts = np.bincount(context.loaded.data.val.labels.numpy()).astype(float)
        trained = np.bincount(context.loaded.data.train.labels.numpy()).astype(float)
        baseline = Baseline.of(counts, trained)
        sd = seed_sd(trials)
        criteria = criteria_of(best, baseline, edges, sd, self.metric)
        found = any(each.finite for each in best) and not any(each.level is Level.FAIL for each in criteria)
        seconds = (time.monotonic() - began) / max(1, context.budget.used - used) / self.epochs
        return StepResult(
            step=self.name,
            headline=headline_of(best, len(trials), self.epochs, self.metric),
            criteria=criteria,
            advice=[] if found else [Advice(text="No point learns: look at task=overfit and task=find_lr.")],
            measurements=self._measurements(best, trials, baseline, grid, extended, sd),
            table=rows_of(best, self.metric),
            handoff=dict(best[0].values) if found else {},
            facts={**self._facts(best, grid), "epoch_seconds": seconds} if found else {},
        )

    def _grid(self, context: Context) -> Grid:
        """Return the values to begin with."""
        return grid_around(context.config, self.lr_factors, self.weight_decays, context.facts)

    def _search(self, context: Context) -> tuple[list[Trial], Grid, list[str], int]:
        """Return the trials, the final grid, the ends that the best is on, and the number of extensions."""
        base = context.vary(context.config, trial_overrides(context.config, self.epochs))
        grid = self._grid(context)
        if self.mode != "grid":
            count = int(min(self.points * self.seeds, context.budget.left) // self.seeds)
            points = grid.sampled(self.mode, count, base["seed"])
            trials = self._train(context, base, points)
            return trials, grid, grid.outer(self._best(trials).values), 0
        trials, extended = self._train(context, base, grid.points()), 0
        while edges := self._edges(grid, trials):
            wider = grid.extended(edges)
            points = [each for each in wider.points() if each not in grid.points()]
            count = len(points) * self.seeds
            if extended >= _EXTENSIONS or context.budget.refusal(count, seconds_of(context, count, self.epochs)):
                break
            trials, grid, extended = trials + self._train(context, base, points), wider, extended + 1
        return trials, grid, edges, extended

    def _train(self, context: Context, base: dict[str, Any], points: Sequence[Mapping[str, float]]) -> list[Trial]:
        """Train points with all seeds."""
        seeds = [base["seed"] + number for number in range(self.seeds)]
        return train_all(context, base, [(each, seed) for each in points for seed in seeds], self.metric)

    def _best(self, trials: Sequence[Trial]) -> Trial:
        """Return the best point."""
        return ranked(averaged(trials), self.metric)[0]

    def _edges(self, grid: Grid, trials: Sequence[Trial]) -> list[str]:
        """Return the ends that the best point is on, none if no training has a score."""
        best = self._best(trials)
        return grid.edges(best.values) if best.finite else []

    def _facts(self, best: Sequence[Trial], grid: Grid) -> dict[str, Any]:
        """Return what later steps use: the candidates, and the runs whose curves step 6 looks at."""
        finite = [each for each in best if each.finite]
        rates = [next((each for each in finite if each.values["optim.lr"] == lr), None) for lr in grid.lrs]
        near = dict.fromkeys(each.folder for each in (*finite[1:_CANDIDATES], *filter(None, rates)))
        return {
            "candidates": [dict(each.values) for each in finite[:_CANDIDATES]],
            "coarse_epochs": self.epochs,
            "curves": {"winner": [finite[0].folder], "others": [each for each in near if each != finite[0].folder]},
        }

    def _measurements(
        self, best: Sequence[Trial], trials: Sequence[Trial], baseline: Baseline, grid: Grid, extended: int, sd: float
    ) -> dict[str, Any]:
        """Return the numbers of `result.json`."""
        return {
            "metric": self.metric,
            "epochs": self.epochs,
            "trials": [vars(each) for each in best],
            "seeds": self.seeds,
            "seed_sd": sd,
            "count": len(trials),
            "majority": baseline.majority,
            "chance": baseline.chance,
            "prior_entropy": baseline.entropy,
            "lrs": grid.lrs,
            "weight_decays": grid.decays,
            "extended": extended,
            "sure": f"How sure: best of {len(best)} points by {self.metric} after {self.epochs:g} epochs, which is "
            "too short to tell near ones apart; no fresh seed has confirmed it.",
        }
