"""Run the steps of the protocol in order: what is done is kept by key, what was found is handed on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner import plain_yaml, user_paths
from runner.engine.provenance import code_origin
from runner.engine.saving.storage import make_folders, write_atomic
from runner.errors import ConfigError
from runner.hashes import digest, hash8
from runner.protocol.context import Config, Context, Step
from runner.protocol.final_test import was_read
from runner.protocol.outcome import SCHEMA, Advice, Level, StepResult, from_record, json_values
from runner.protocol.recipe import word_of

_STATE = "state.json"
_HANDOFF = "handoff.yaml"
_RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps to run, and what all of them get.

    Attributes:
        steps: The steps, in order.
        context: What each gets; `config` is the user's, `folder` that of the whole protocol.
        code: What identifies the user's code.
        keep_going: Run the steps after one that failed, too.
        say: Prints a line of progress.
    """

    steps: Sequence[Step]
    context: Context
    code: Any
    keep_going: bool
    say: Callable[[str], None]


@dataclass
class Progress:
    """The steps done so far; `state.json` holds them.

    Attributes:
        results: The results of the steps that ended, in order.
        handoff: The overrides that they hand on.
        facts: The numbers that they hand on.
        notes: Lines about pinned keys and steps that were not begun.
        keys: The key of each step.
    """

    results: list[StepResult] = field(default_factory=list)
    handoff: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> StepResult | None:
        """Return the first step that failed, None if none did."""
        return next((each for each in self.results if each.status is Level.FAIL), None)


def run_steps(plan: Plan) -> Progress:
    """Run the steps whose result is not there yet, and return what all found; stops after one that fails."""
    progress, budget = Progress(), plan.context.budget
    budget.spent = _seconds_spent(plan.context.folder)
    for step in plan.steps:
        if progress.failed and not plan.keep_going:
            progress.notes.append(f"step {step.number} {step.name}: not begun, as {progress.failed.step} failed")
            continue
        result = _kept_or_new(plan, step, progress)
        if result is None:
            continue
        progress.results.append(result)
        _hand_on(plan, step, result, progress)
        write_state(plan, progress)
    for line in progress.notes:
        plan.say(f"  {line}")
    return progress


def _kept_or_new(plan: Plan, step: Step, progress: Progress) -> StepResult | None:
    """Return the result of a step: that in its folder if its key is the same, else a new one; None without budget."""
    folder = plan.context.folder / f"{step.number:02d}_{step.name}"
    context = replace(plan.context, config=_config_after(plan, progress), facts=progress.facts, folder=folder)
    key = _key(plan, step, context, progress)
    progress.keys[step.name] = key
    kept = _read(folder / _RESULT, key)
    if kept:
        plan.say(f"  step {step.number} {step.name}: {kept.status}, from the earlier command")
        context.budget.used += kept.trainings
        return kept
    if problem := context.budget.refusal(*step.needs(context)):
        progress.notes.append(f"step {step.number} {step.name}: not begun, it {problem} (task.budget)")
        return None
    plan.say(f"  step {step.number} {step.name}")
    make_folders(folder)
    # Runs of other code or other settings are not taken for these
    result = _timed(step, replace(context, folder=folder / f"runs-{key}"))
    record = result.record(key=key, number=step.number, inputs=step.reads(context), env=_environment(context))
    write_atomic(folder / _RESULT, json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
    write_atomic(folder / "config.yaml", plain_yaml.dump(context.config))
    # As it will be read back
    return from_record(json.loads(json.dumps(json_values(record))))


def _timed(step: Step, context: Context) -> StepResult:
    """Run a step and return its result with its cost."""
    began, used = time.monotonic(), context.budget.used
    result = step.run(context)
    result = replace(result, advice=[_that_composes(each, context) for each in result.advice])
    return replace(result, seconds=round(time.monotonic() - began, 3), trainings=context.budget.used - used)


def _that_composes(advice: Advice, context: Context) -> Advice:
    """Return an advice without its overrides if the config cannot take them."""
    try:
        context.vary(context.config, advice.overrides)
    except ConfigError:
        return replace(advice, overrides=())
    return advice


def _key(plan: Plan, step: Step, context: Context, progress: Progress) -> str:
    """Return what a result depends on, as a hash: config, knobs, code, data and earlier steps."""
    reads = {name: value for name, value in step.reads(context).items() if name != "config"}
    return digest(
        json_values(
            [
                step.name,
                hash8(context.config),
                reads,
                plan.code,
                context.loaded.fingerprint.id,
                list(progress.keys.values()),
                # Times differ between machines and repetitions
                {name: value for name, value in progress.facts.items() if not name.endswith("_seconds")},
            ]
        )
    )


def _config_after(plan: Plan, progress: Progress) -> Config:
    """Return the user's config with what earlier steps hand on; keys of the command line stay."""
    context = plan.context
    changes = {key: value for key, value in progress.handoff.items() if key not in context.pinned}
    return context.vary(context.config, changes) if changes else context.config


def _hand_on(plan: Plan, step: Step, result: StepResult, progress: Progress) -> None:
    """Take over what a step hands on, and note which keys of it the user has pinned."""
    progress.facts |= result.facts
    progress.handoff |= result.handoff
    for key, value in result.handoff.items():
        if key in plan.context.pinned:
            own = _value_at(plan.context.config, key)
            measured = word_of(key, value).partition("=")[2]
            progress.notes.append(f"{key} pinned by the command line: {own} (step {step.number} measured {measured})")


def _value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key."""
    found: Any = config
    for word in key.split("."):
        found = found[word]
    return found


def write_state(plan: Plan, progress: Progress) -> None:
    """Write `state.json` and `handoff.yaml`."""
    budget = plan.context.budget
    state = {
        "schema": SCHEMA,
        "steps": {
            each.step: {"status": str(each.status), "key": progress.keys[each.step], "seconds": each.seconds}
            for each in progress.results
        },
        "facts": progress.facts,
        "trainings": budget.used,
        "test_reads": int(was_read(plan.context.folder)),
        "seconds": round(budget.elapsed, 3),
    }
    content = json.dumps(json_values(state), indent=1, allow_nan=False).encode() + b"\n"
    write_atomic(plan.context.folder / _STATE, content)
    lines = [
        f"{key}={value!r}" if isinstance(value, float) else word_of(key, value)
        for key, value in progress.handoff.items()
    ]
    write_atomic(plan.context.folder / _HANDOFF, plain_yaml.dump(lines))


def _seconds_spent(folder: Path) -> float:
    """Return the seconds that earlier processes took for finished steps."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads(Path(user_paths.full(folder / _STATE)).read_bytes())["seconds"])
    return 0.0


def _read(path: Path, key: str) -> StepResult | None:
    """Return the result in a file, None if there is none of this key."""
    if not user_paths.is_file(path):
        return None
    with suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads(Path(user_paths.full(path)).read_bytes())
        return from_record(record) if record["key"] == key else None
    return None


def _environment(context: Context) -> dict[str, Any]:
    """Return where a result was measured."""
    return {**code_origin(), "device": context.config["device"], "seed": context.config["seed"]}
