"""Step 2: a sound model fits a small sample, at the configured learning rate or at one near it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.engine.saving.storage import convert_os_errors
from runner.protocol.context import Config, Context
from runner.protocol.fit_diagnosis import Diagnosis, Sample, diagnose
from runner.protocol.outcome import Advice, Criterion, Level, StepResult
from runner.protocol.plain_config import plain_overrides
from runner.user_paths import full

# Passes over the sample with equal images
_BLIND_PASSES = 5
# Steps with permuted labels
_PERMUTED_STEPS = 100
_NO_LOSS = math.inf


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """Step 2. The attributes are the knobs of `task=overfit`."""

    n_batches: int
    max_examples: int
    max_steps: int
    lr_ladder: tuple[float, ...]
    loss_frac: float
    controls: bool
    number: int = 2
    name: str = "overfit"

    def reads(self, context: Context) -> Mapping[str, Any]:
        """Return all that the result depends on."""
        return {"config": context.config, "knobs": vars(self)}

    def needs(self, context: Context) -> tuple[int, float]:
        """Return the first rung with its controls, at a third of the time of all its steps."""
        per_step = context.facts.get("pass_seconds", 0.0)
        return 1 + 2 * self.controls, self.max_steps * per_step / 3

    def run(self, context: Context) -> StepResult:
        """Climb the ladder of learning rates until one fits the sample; the controls run beside the first rung."""
        examples = self._examples(context)
        chance = context.facts.get("chance_loss") or _initial(context)
        goal = float(f"{self.loss_frac * abs(chance):.4g}")
        factors, rungs, controls = list(self.lr_ladder), list[dict[str, Any]](), dict[str, dict[str, Any]]()
        while factors and not any(rung["reached"] for rung in rungs):
            # The first rung alone is enough for a sound model; the others go in pairs, on both sides
            now = factors[: 2 if rungs else 1]
            if rungs and context.budget.refusal(len(now)):
                break
            factors = factors[len(now) :]
            variants = [self._rung(context, factor, examples, goal) for factor in now]
            beside = {} if rungs or not self.controls else self._controls(context, examples)
            found = [_read(each) for each in context.train([*variants, *beside.values()])]
            rungs += [{**a, "lr": v["optim"]["lr"], "factor": f} for a, v, f in zip(found, variants, now, strict=False)]
            controls |= dict(zip(beside, found[len(variants) :], strict=True))
        sample = self._sample(rungs[0], chance, goal, context.config)
        return self._result(rungs, controls, sample, context)

    def _examples(self, context: Context) -> int:
        """Return the size of the sample."""
        data = context.loaded.data
        accumulate: int = context.config["accumulate"]
        step = data.batch_size * accumulate
        count = min(self.n_batches * step, self.max_examples, len(data.train.labels))
        # BatchNorm needs two examples in the last step, too
        return count - 1 if count > 1 and count % step == 1 else count

    def _rung(self, context: Context, factor: float, examples: int, goal: float) -> Config:
        """Return the config of a rung of the ladder."""
        own = {"task.examples": examples, "task.loss_below": goal, "steps": self.max_steps}
        lr = float(f"{context.config['optim']['lr'] * factor:.4g}")
        return context.vary(context.config, {**_fit_overrides(context.config), **own, "optim.lr": lr})

    def _controls(self, context: Context, examples: int) -> dict[str, Config]:
        """Return the configs of the controls."""
        passes = _BLIND_PASSES * max(1, math.ceil(examples / (context.loaded.data.batch_size)))
        base = {**_fit_overrides(context.config), "task.examples": examples}
        return {
            "zero_input": context.vary(context.config, {**base, "task.control": "zero_input", "steps": passes}),
            "shuffled_labels": context.vary(
                context.config, {**base, "task.control": "shuffled_labels", "steps": _PERMUTED_STEPS}
            ),
        }

    def _sample(self, rung: Mapping[str, Any], chance: float, goal: float, config: Config) -> Sample:
        """Return what is known about the sample."""
        shares = [share for share in rung["shares"] if share]
        return Sample(
            chance=chance,
            entropy=-sum(share * math.log(share) for share in shares),
            classes=len(rung["shares"]),
            bound=rung["bound"],
            goal=goal,
            softmax=config["loss"]["name"] == "cross_entropy",
        )

    def _result(
        self,
        rungs: Sequence[Mapping[str, Any]],
        controls: Mapping[str, Mapping[str, Any]],
        sample: Sample,
        context: Context,
    ) -> StepResult:
        """Return the result of the step."""
        won = next((rung for rung in rungs if rung["reached"]), None)
        fault = None if won else diagnose(rungs, sample)
        criteria = [_fitted(rungs, won, fault, sample), *_control_criteria(controls, sample)]
        measured = {
            "rungs": [{**rung, "curve": rung["curve"]} for rung in rungs],
            "controls": {name: each["curve"][-1] for name, each in controls.items()},
            "loss_below": sample.goal,
            "examples": rungs[0]["examples"],
            "bound": sample.bound,
            "diagnosis": fault.name if fault else None,
        }
        facts = {"lr_overfit": won["lr"]} if won else {}
        advice = [fault.advice] if fault else _of_ladder(won)
        return StepResult(
            step=self.name, headline=_headline(rungs, won, fault), criteria=criteria, advice=advice,
            measurements=measured, table=list(map(_row, rungs)), facts=facts,
        )  # fmt: skip


def _fit_overrides(config: Config) -> dict[str, Any]:
    """Return the overrides of each training on the sample."""
    return {**plain_overrides(config), "task": "fit_subset"}


def _initial(context: Context) -> float:
    """Return the loss of chance if step 1 was not run: ln K, which is only a scale for other losses."""
    return math.log(max(2, len(context.loaded.data.classes)))


def _read(result: Any) -> dict[str, Any]:
    """Return the `fit.json` of a launched run."""
    path = result.folder / "fit.json"
    with convert_os_errors(path):
        found: dict[str, Any] = json.loads(Path(full(path)).read_bytes())
    return found


def _fitted(
    rungs: Sequence[Mapping[str, Any]], won: Mapping[str, Any] | None, fault: Diagnosis | None, sample: Sample
) -> Criterion:
    """Return the criterion that some rung fits the sample."""
    shown = won or min(rungs, key=lambda rung: _loss(rung["curve"][-1]))
    last = shown["curve"][-1]
    if won is None:
        level, why = Level.FAIL, f"{fault.name}: {fault.why}" if fault else ""
    elif won["factor"] == 1:
        level, why = Level.PASS, ""
    else:
        level = Level.WARN
        size = "small" if won["factor"] > 1 else "large"
        why = f"the configured learning rate {won['lr'] / won['factor']:.3g} is too {size}: {won['lr']:.3g} fits"
    bound = "" if sample.bound == 1 else f" ({sample.bound:.1%} can be right: equal images have several labels)"
    return Criterion(
        name="fits the sample",
        value=f"accuracy {last['eval_accuracy']:.1%}, loss {_loss(last):.3g} (lr {shown['lr']:.3g})",
        threshold=f"accuracy {sample.bound:.0%}{bound}, loss <= {sample.goal:.3g}",
        level=level,
        why=why,
        source="CS231n, neural-networks-3",
    )


def _loss(point: Mapping[str, Any]) -> float:
    """Return the training loss of a point, infinite if it is not finite."""
    return _NO_LOSS if point["train_loss"] is None else float(point["train_loss"])


def _control_criteria(controls: Mapping[str, Mapping[str, Any]], sample: Sample) -> list[Criterion]:
    """Return the criteria of the controls: neither may do better than the class frequencies."""
    found = []
    if blind := controls.get("zero_input"):
        last, most = blind["curve"][-1], max(blind["shares"])
        beats = last["train_accuracy"] > most + 1e-6
        found.append(
            Criterion(
                name="control: equal images",
                value=f"accuracy {last['train_accuracy']:.1%}",
                threshold=f"<= {most:.1%}, the most frequent class",
                level=Level.WARN if beats else Level.PASS,
                why="equal images are told apart: labels reach the model in another way" if beats else "",
                source="Karpathy 2019",
            )
        )
    if permuted := controls.get("shuffled_labels"):
        accuracy, most, count = permuted["curve"][-1]["eval_accuracy"], max(permuted["shares"]), permuted["examples"]
        limit = most + 3 * math.sqrt(most * (1 - most) / count)
        found.append(
            Criterion(
                name="control: permuted labels",
                value=f"validation accuracy {accuracy:.1%}",
                threshold=f"<= {limit:.1%}, the most frequent class + 3 standard errors",
                level=Level.WARN if accuracy > limit else Level.PASS,
                why="permuted labels predict validation: its labels leak into training" if accuracy > limit else "",
            )
        )
    return found


def _headline(rungs: Sequence[Mapping[str, Any]], won: Mapping[str, Any] | None, fault: Diagnosis | None) -> str:
    """Return the line about the step."""
    examples = rungs[0]["examples"]
    if won:
        return f"{examples} examples are fitted after {won['curve'][-1]['step']} steps at lr {won['lr']:.3g}"
    return f"{examples} examples are not fitted at any of {len(rungs)} learning rates: {fault.name if fault else ''}"


def _of_ladder(won: Mapping[str, Any] | None) -> list[Advice]:
    """Return the advice to take the rung that fits."""
    if won is None or won["factor"] == 1:
        return []
    return [Advice(text="Take a learning rate near the one that fits.", overrides=(f"optim.lr={won['lr']:.3g}",))]


def _row(rung: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of a rung."""
    last = rung["curve"][-1]
    return {
        "lr": f"{rung['lr']:.3g}",
        "steps": str(last["step"]),
        "loss": "" if last["train_loss"] is None else f"{last['train_loss']:.4g}",
        "training mode": f"{last['train_accuracy']:.1%}",
        "evaluation mode": f"{last['eval_accuracy']:.1%}",
        "outcome": "diverged" if rung["diverged"] else "fitted" if rung["reached"] else "not fitted",
    }
