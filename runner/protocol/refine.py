"""Step 5: a refining search around the candidates, in longer trainings; fresh seeds confirm its winner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.engine.monitor import Monitor
from runner.protocol.context import Context
from runner.protocol.outcome import Level, StepResult
from runner.protocol.refine_space import candidates_of, edges_of, first_ranges, widest_ranges
from runner.protocol.refine_words import Confirmed, criteria_of, headline_of, rows_of, sure_of
from runner.protocol.trials import (
    DECAY,
    Metric,
    Trial,
    seconds_of,
    seed_sd,
    train_all,
    trial_overrides,
    write_trials,
)
from runner.search.refine import Progress, RefineSettings, Request, replay, round_cost, training_key
from runner.search.space import Point, Space

# Epochs where the knob says auto: at least so many, and so many times those of step 4
_LEAST_EPOCHS, _TIMES = 10.0, 5.0
_COARSE_EPOCHS = 3.0
# Fewest points that a small budget leaves
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Refine:
    """Step 5. The attributes are the knobs of `task=refine`."""

    epochs: float | Literal["auto"]
    points: int
    rounds: int
    seeds: int
    confirm_seeds: int
    metric: Metric
    number: int = 5
    name: str = "refine"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "knobs": vars(self)}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return a round of the fewest points, and the fresh seeds."""
        count = round_cost(min(self.points, _FEWEST), self.seeds) + 2 * self.confirm_seeds
        return count, seconds_of(context, count, self._epochs(context))

    def run(self, context: Context) -> StepResult:
        """Search in rounds, train the winner and the incumbent with fresh seeds, and compare them."""
        candidates, stable = candidates_of(context.config, context.facts), context.facts.get("lr_max_stable")
        start = first_ranges(candidates, stable)
        settings = self._settings(context, candidates, start)
        progress, done = self._search(context, widest_ranges(start, stable), settings)
        confirmed = self._confirmed(progress, done, settings)
        stages = [request.stage for request, _ in done]
        trials = [trial for _, trial in done]
        write_trials(context, trials, self.metric, stages)
        assert progress.winner is not None
        edges = edges_of(progress.winner, [request.point for request, _ in done], stable)
        criteria = criteria_of(confirmed, edges, self.metric)
        found = not any(each.level is Level.FAIL for each in criteria)
        return StepResult(
            step=self.name,
            headline=headline_of(confirmed, len(trials), self._epochs(context), self.metric),
            criteria=criteria,
            measurements=self._measurements(context, confirmed, done, progress),
            table=rows_of(done, self.metric),
            handoff=confirmed.chosen if found else {},
            facts=self._facts(confirmed, done) if found else {},
        )

    def _epochs(self, context: Context) -> float:
        """Return the epochs of each training."""
        if self.epochs != "auto":
            return self.epochs
        return max(_LEAST_EPOCHS, _TIMES * float(context.facts.get("coarse_epochs", _COARSE_EPOCHS)))

    def _settings(self, context: Context, candidates: list[Point], start: Space) -> RefineSettings:
        """Return the settings of the rounds, with no more trainings than the budget has left."""
        wanted = self.rounds * round_cost(self.points, self.seeds) + 2 * self.confirm_seeds
        seed = int(context.config["seed"])
        return RefineSettings(
            start=start,
            trainings=int(min(wanted, context.budget.left)),
            points=self.points,
            seeds=self.seeds,
            confirm_seeds=self.confirm_seeds,
            first_seed=seed,
            sampler_seed=seed,
            sign=Monitor(self.metric).sign,
            initial=tuple(start.ordered(each) for each in candidates),
        )

    def _search(
        self, context: Context, space: Space, settings: RefineSettings
    ) -> tuple[Progress, list[tuple[Request, Trial]]]:
        """Train what the rounds ask for until they end; return how they ended, and all trainings in order."""
        overrides = trial_overrides(context.config, self._epochs(context))
        base = context.vary(context.config, overrides)
        # The winner has the config's probes: step 6 reads what they log, and they change no number
        probed = context.vary(context.config, {key: each for key, each in overrides.items() if key != "probe"})
        done: list[tuple[Request, Trial]] = []
        known: dict[tuple[str, int], float] = {}
        fixed = self._fixed(context, space)
        while (progress := replay(space, settings, known)).wanted:
            for stage in dict.fromkeys(each.stage for each in progress.wanted):
                asked = [each for each in progress.wanted if each.stage == stage]
                points = [({**_values(space, each.point), **fixed}, each.seed) for each in asked]
                trials = train_all(context, probed if stage == "winner" else base, points, self.metric)
                done += zip(asked, trials, strict=True)
                known |= {
                    training_key(space, each.point, each.seed): trial.score
                    for each, trial in zip(asked, trials, strict=True)
                }
        return progress, done

    def _fixed(self, context: Context, space: Space) -> dict[str, float]:
        """Return the weight decay if no axis has it: that of the candidates, which is 0."""
        has_axis = any(axis.key == DECAY for axis in space.axes)
        return {} if has_axis or "weight_decay" not in context.config["optim"] else {DECAY: 0.0}

    def _confirmed(self, progress: Progress, done: list[tuple[Request, Trial]], settings: RefineSettings) -> Confirmed:
        """Return the fresh scores of the winner and the incumbent."""
        fresh = {
            name: {request.seed: trial for request, trial in done if request.stage == name}
            for name in ("winner", "incumbent")
        }
        same = not fresh["incumbent"]
        trials = [trial for request, trial in done]
        return Confirmed(
            winner=list(fresh["winner"].values()),
            incumbent=[] if same else list(fresh["incumbent"].values()),
            sign=settings.sign,
            seed_sd=seed_sd(trials),
            reason=progress.reason or "",
        )

    def _facts(self, confirmed: Confirmed, done: list[tuple[Request, Trial]]) -> dict[str, Any]:
        """Return what later steps use: the spread of seeds, and the runs whose curves step 6 looks at."""
        kept = confirmed.kept
        others = [trial.folder for request, trial in done if request.stage.startswith("round")]
        return {
            "seed_sd": confirmed.seed_sd,
            "curves": {"winner": [each.folder for each in kept], "others": others},
        }

    def _measurements(
        self, context: Context, confirmed: Confirmed, done: list[tuple[Request, Trial]], progress: Progress
    ) -> dict[str, Any]:
        """Return the numbers of `result.json`."""
        interval = confirmed.interval
        return {
            "metric": self.metric,
            "epochs": self._epochs(context),
            "trials": [{**vars(trial), "stage": request.stage} for request, trial in done],
            "rounds": progress.notes,
            "ended": progress.reason,
            "seed_sd": confirmed.seed_sd,
            "winner": [each.score for each in confirmed.winner],
            "incumbent": [each.score for each in confirmed.incumbent],
            "difference": {"mean": interval.mean, "low": interval.low, "high": interval.high, "p": interval.p},
            "sure": sure_of(confirmed, self.metric),
        }


def _values(space: Space, point: Point) -> dict[str, float]:
    """Return the values of a point as its run gets them."""
    return {key: float(text) for key, text in space.words(space.ordered(point))}
