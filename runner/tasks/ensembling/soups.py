"""Model soups: one model with the averaged weights of several, whose BatchNorms get statistics from training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from runner.assemble import Experiment, assemble
from runner.engine.interruption import NEVER
from runner.engine.joint_statistics import batch_norms
from runner.engine.recalibration import Recalibration
from runner.engine.saving import checkpoint
from runner.engine.saving.storage import printable
from runner.engine.state_dict import StateDict
from runner.ensembles.calibration import Array, prediction_scores, with_temperature
from runner.ensembles.soup import averaged, loss_barrier
from runner.errors import ConfigError
from runner.hashes import digest
from runner.printing import counted
from runner.tasks.ensembling.candidates import Candidate
from runner.tasks.ensembling.combining import Made, fitted, soup_statistics
from runner.tasks.ensembling.outputs import CommonData, Outputs, predicted, validation_outputs
from runner.tasks.ensembling.selection import Selection, halves, ranking, select
from runner.tasks.report import print_progress

# What equal initial weights follow from, beside the seed
_INITIAL = ("init", "model", "activation", "norm")
# What the weights of two models must have in common beside their shapes
_PARTS = ("model", "activation", "norm", "preprocess")
_WAY = "task.combine=probabilities combines any models"


class _Kitchen:
    """Makes soups of models, each with statistics of its BatchNorms from the training data, and predicts with them.

    Args:
        models: The models that can be averaged.
        data: Their data.
    """

    def __init__(self, models: Sequence[Candidate], data: CommonData) -> None:
        self._models, self._data = models, data
        self._experiment: Experiment | None = None

    def mixed(self, places: Sequence[int], shares: Sequence[float] | None = None) -> Candidate:
        """Return the soup of some models, which is otherwise like the first of them; of one it is that model."""
        first = self._models[places[0]]
        if len(places) == 1:
            return first
        shares = shares or [1 / len(places)] * len(places)
        weights = averaged([self._models[place].state() for place in places], shares)
        return replace(first, tensors=self._with_statistics(first, weights), name="soup")

    def log_p(self, soup: Candidate, split: str = "val") -> Array:
        """Return the log-probabilities (N, C) of a soup for a split."""
        found: Array = predicted([soup], self._data, split, quiet=True).log_p[0]
        return found

    def _with_statistics(self, first: Candidate, weights: StateDict) -> StateDict:
        """Return weights whose BatchNorms have the statistics of training data."""
        experiment = self._experiment or assemble(first.run.config, fit=False, loaded=self._data.loaded)
        self._experiment = experiment
        learner = experiment.learner
        if not batch_norms(learner.average.module):
            return weights
        learner.load_weights(weights)
        learner.step = max(1, first.run.result.steps)
        learner.freezing.apply(learner.step)
        Recalibration(experiment.recipe, experiment.batches, lambda step: True)(learner, NEVER)
        found = learner.weights()
        fresh = StateDict((name, tensor.detach().cpu().clone()) for name, tensor in found.items())
        fresh.versions = found.versions
        return fresh


def make_soup(
    models: Sequence[Candidate], data: CommonData, members: str, temperature: float | Literal["fit"], seed: int
) -> Made:
    """Return the soup of the models that `members` chooses.

    Raises:
        ConfigError: Their architectures differ, or they began with different weights and a barrier is between them.
    """
    _check_architecture(models)
    outputs = validation_outputs(models, data)
    kitchen = _Kitchen(models, data)
    greedy = members == "greedy"
    ranked = ranking(outputs)
    chosen = _all_of(ranked, outputs, seed) if greedy else select(members, outputs, "probabilities", seed)
    used = [place for place in ranked if chosen.weights[place]]
    lines = _check_origin(models, used, kitchen, outputs)
    if greedy:
        chosen = _greedy(chosen, used, kitchen, outputs)
        used = [place for place in used if chosen.weights[place]]
    print_progress(f"averaging the weights of {counted(len(used), 'model')}")
    soup = kitchen.mixed(used)
    log_p = kitchen.log_p(soup) if len(used) > 1 else outputs.log_p[used[0]]
    found, chosen = fitted(temperature, chosen, outputs, log_p, seed)
    part = chosen.scored
    return Made(
        models=models,
        selection=chosen,
        how="weights",
        used=[soup],
        shares=[1.0],
        temperature=found,
        outputs=outputs,
        log_p=with_temperature(log_p, found.value),
        statistics=soup_statistics(outputs.part(part), log_p[part], chosen.weights, chosen.best, seed),
        lines=lines,
    )


def _all_of(ranked: Sequence[int], outputs: Outputs, seed: int) -> Selection:
    """Return all models, before a greedy soup leaves some out on the first half of validation."""
    first, second = halves(outputs, seed)
    weights = np.full(len(ranked), 1 / len(ranked))
    return Selection(weights=weights, best=ranked[0], fitted=first, scored=second, words="")


def _greedy(chosen: Selection, ranked: Sequence[int], kitchen: _Kitchen, outputs: Outputs) -> Selection:
    """Return the members of the greedy soup: each model in turn, the best first, that does not lower the accuracy."""
    assert chosen.fitted is not None
    part = outputs.part(chosen.fitted)
    own = {place: prediction_scores(part.log_p[place], part.labels).accuracy for place in ranked}
    # By the half that selects, so that the soup is never worse than the best model there
    ranked = sorted(ranked, key=lambda place: -own[place])
    kept, best = [ranked[0]], own[ranked[0]]
    for place in ranked[1:]:
        found = kitchen.log_p(kitchen.mixed([*kept, place]))[chosen.fitted]
        score = prediction_scores(found, part.labels).accuracy
        if score >= best:
            kept, best = [*kept, place], score
    weights = np.zeros(len(outputs.log_p))
    weights[kept] = 1 / len(kept)
    words = f"greedy soup of {len(kept)} of {len(ranked)} models, selected on {len(part.labels)} validation examples"
    return replace(chosen, weights=weights, words=words)


def _check_architecture(models: Sequence[Candidate]) -> None:
    """Raise ConfigError if the weights of two models are not those of one architecture."""
    first, state = models[0], models[0].state()
    for other in models[1:]:
        both = f"runs: {printable(first.run.folder)} and {printable(other.run.folder)}"
        ours, theirs = (digest([each.run.config[part] for part in _PARTS]) for each in (first, other))
        wrong = checkpoint.mismatch(state, other.state())
        if wrong or ours != theirs:
            differing = [part for part in _PARTS if first.run.config[part] != other.run.config[part]]
            why = wrong or f"{differing[0]} differs"
            raise ConfigError(f"{both} have different architectures ({why}), and a soup averages weights; {_WAY}")


def _check_origin(
    models: Sequence[Candidate], used: Sequence[int], kitchen: _Kitchen, outputs: Outputs
) -> tuple[str, ...]:
    """Return a line about the loss between two models that began with different weights, empty if all began alike.

    Raises ConfigError if it is above the line between theirs.
    """
    first = used[0]
    stranger = next((place for place in used[1:] if not _share_origin(models[first], models[place])), None)
    if stranger is None:
        return ()
    names = f"{models[first].name} and {models[stranger].name}"
    print_progress(f"measuring the loss between {names}, which began with different weights")
    ends = _nll(outputs, first), _nll(outputs, stranger)
    barrier = loss_barrier(_loss_between(kitchen, first, stranger, outputs), ends)
    if barrier > 0:
        raise ConfigError(
            f"task.combine=weights: {names} began with different weights, and between them the nll rises by "
            f"{barrier:.4f} (loss barrier); a soup needs runs of one init_from or one seed; {_WAY}"
        )
    return (f"{names} began with different weights, and the nll does not rise between them ({barrier:+.4f})",)


def _loss_between(kitchen: _Kitchen, first: int, second: int, outputs: Outputs) -> Callable[[float], float]:
    """Return the negative log-likelihood on validation of the model at a place between two."""

    def loss_at(place: float) -> float:
        found = kitchen.log_p(kitchen.mixed([first, second], [1 - place, place]))
        return prediction_scores(found, outputs.labels).nll

    return loss_at


def _nll(outputs: Outputs, place: int) -> float:
    """Return the negative log-likelihood of a model on validation."""
    return prediction_scores(outputs.log_p[place], outputs.labels).nll


def _share_origin(one: Candidate, other: Candidate) -> bool:
    """Return True if two models began with the same weights, or are of one run."""
    ours, theirs = one.run.config, other.run.config
    if one.run.folder == other.run.folder:
        return True
    if ours["init_sha256"] or theirs["init_sha256"]:
        return bool(ours["init_sha256"] == theirs["init_sha256"])
    return ours["seed"] == theirs["seed"] and all(ours[part] == theirs[part] for part in _INITIAL)
