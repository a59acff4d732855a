"""Step 7: one change a round, as the doctor advises, kept only if trainings with the same seeds are better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.comparing.runs import find_runs
from runner.doctor.checkup import examine
from runner.doctor.executable import with_executable_advice
from runner.doctor.finding import Finding
from runner.engine.monitor import Monitor
from runner.engine.saving.storage import write_atomic
from runner.printing import counted
from runner.protocol.context import Config, Context
from runner.protocol.goto_words import Round, criteria_of, headline_of, notebook_of, rows_of, sure_of
from runner.protocol.next_change import Change, errors_in, next_change
from runner.protocol.outcome import StepResult
from runner.protocol.plain_config import quiet_overrides
from runner.protocol.trials import Metric, Trial, seconds_of, train_all, write_trials

# Seeds of each config, and the distance of the first one from those of the searches
_SEEDS, _FAR = 3, 1000
# Rounds in a row without a better config after which the step ends
_PATIENCE = 2
_NOTEBOOK = "lab_notebook.md"
# Of what other trainings of the protocol leave out
_KEPT = ("average", "predict")


@dataclass(frozen=True, kw_only=True)
class Goto:
    """Step 7.

    Attributes:
        rounds: The most rounds.
        metric: The score that decides.
    """

    rounds: int
    metric: Metric
    number: int = 7
    name: str = "goto"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "rounds": self.rounds, "metric": self.metric}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return the trainings of the config as it is: without them there is nothing to diagnose."""
        return _SEEDS, seconds_of(context, _SEEDS, _epochs(context))

    def run(self, context: Context) -> StepResult:
        """Train the config, and change it round by round; return what was kept."""
        state = _State(config=_as_trained(context), current=[], changes={}, stages=[], trials=[])
        state.current = self._train(context, state, "as found")
        rounds, said, findings = list[Round](), list[str](), _findings(context, state)
        ended = ""
        while not ended:
            change = next_change(findings, context, {each.change.text for each in rounds}, said)
            ended = self._end(context, rounds, findings, change)
            if ended or change is None:
                break
            made = self._round(context, state, change, len(rounds) + 1)
            rounds.append(made)
            if made.accepted:
                findings = _findings(context, state)
        write_trials(context, state.trials, self.metric, state.stages)
        notebook = notebook_of(rounds, ended, self.metric)
        write_atomic(context.folder.parent / _NOTEBOOK, notebook.encode())
        return StepResult(
            step=self.name,
            headline=headline_of(rounds, ended),
            criteria=criteria_of(rounds, findings, list(dict.fromkeys(said)), self.metric),
            measurements=self._measurements(state, rounds, findings, ended),
            table=rows_of(rounds, self.metric),
            handoff=state.changes,
        )

    def _end(
        self, context: Context, rounds: Sequence[Round], findings: Sequence[Finding], change: Change | None
    ) -> str:
        """Return why no further round begins, empty if one does."""
        if bad := errors_in(findings):
            return f"{bad[0].id} is an error: back to step 1"
        if change is None:
            return "the doctor has no change left to try" if findings else "the doctor finds nothing"
        if len(rounds) >= self.rounds:
            return f"{counted(self.rounds, 'round')} made (task.rounds)"
        if len(rounds) >= _PATIENCE and not any(each.accepted for each in rounds[-_PATIENCE:]):
            return f"{_PATIENCE} rounds in a row without a better config"
        if problem := context.budget.refusal(_SEEDS, seconds_of(context, _SEEDS, _epochs(context))):
            return f"another round {problem} (task.budget)"
        return ""

    def _round(self, context: Context, state: _State, change: Change, number: int) -> Round:
        """Train the config with one change, and keep it if it is better."""
        before, old = state.config, state.current
        state.config = context.vary(before, list(change.words))
        changed = self._train(context, state, f"round {number}")
        made = Round(
            number=number,
            change=change,
            before=[each.score for each in old],
            after=[each.score for each in changed],
            sign=Monitor(self.metric).sign,
            seed_sd=float(context.facts.get("seed_sd") or math.nan),
        )
        if made.accepted:
            state.current = changed
            state.changes |= _handoff_of(state.config, change)
        else:
            state.config = before
        return made

    def _train(self, context: Context, state: _State, stage: str) -> list[Trial]:
        """Train the present config with each seed."""
        first = int(context.config["seed"]) + _FAR
        # Their names say the seed alone
        place = replace(
            context, folder=context.folder.with_name(f"{context.folder.name}-{len(state.trials) // _SEEDS}")
        )
        trials = train_all(place, state.config, [({}, first + i) for i in range(_SEEDS)], self.metric)
        shown = [replace(each, values={**state.changes}) for each in trials]
        state.trials += shown
        state.stages += [stage] * len(shown)
        return trials

    def _measurements(
        self, state: _State, rounds: Sequence[Round], findings: Sequence[Finding], ended: str
    ) -> dict[str, Any]:
        """Return the numbers of `result.json`."""
        return {
            "metric": self.metric,
            "rounds": [each.record() for each in rounds],
            "ended": ended,
            "findings": [each.id for each in findings],
            "scores": [each.score for each in state.current],
            "curves": [each.folder for each in state.current],
            **({"sure": sure_of(rounds, self.metric)} if any(each.accepted for each in rounds) else {}),
        }


@dataclass
class _State:
    """The present config as it is trained, its trainings, the changes so far, and all trainings with their stages."""

    config: Config
    current: list[Trial]
    changes: dict[str, Any]
    stages: list[str]
    trials: list[Trial]


def _epochs(context: Context) -> float:
    """Return the epochs of a training of the config, about."""
    config = context.config
    batch, steps = config["data"].get("batch_size"), config["steps"]
    if steps is None or not isinstance(batch, int):
        return float(config["epochs"])
    return float(steps * batch / max(1, len(context.loaded.data.train.labels)))


def _as_trained(context: Context) -> Config:
    """Return the config as the recipe trains it: with its schedule, length and average, without test and figures."""
    quiet = {key: value for key, value in quiet_overrides(context.config).items() if key not in _KEPT}
    return context.vary(context.config, {**quiet, "task": "train", "doctor": "never"})


def _findings(context: Context, state: _State) -> list[Finding]:
    """Return what the doctor finds in most trainings of the present config, the worst first, with advice on it."""
    top = context.folder.parent.parent
    runs = find_runs([str(top / each.folder) for each in state.current]).runs
    checked = examine(runs, lambda config, words: context.vary(config, words)).runs
    groups: dict[str, list[Finding]] = {}
    for each in checked:
        for finding in each.findings:
            groups.setdefault(finding.id, []).append(finding)
    common = [min(each, key=lambda one: one.severity.rank) for each in groups.values() if 2 * len(each) > len(checked)]
    ordered = sorted(common, key=lambda one: (one.severity.rank, -one.confidence))
    return with_executable_advice(ordered, state.config, lambda config, words: context.vary(config, words))


def _handoff_of(after: Config, change: Change) -> dict[str, Any]:
    """Return the keys of a change with their values in the config: an option's name, a list of names, or a number."""
    found: dict[str, Any] = {}
    for word in change.words:
        key = word.lstrip("+~").partition("=")[0]
        value: Any = after
        for part in key.split("."):
            value = value[part]
        if isinstance(value, Mapping):
            # A group: one option has a name, several are a mapping of names
            value = value["name"] if "name" in value else list(value)
        found[key] = value
    return found
