"""Settings that would do nothing in a run of this length: a date after its end, a period of 0; imports no torch.

Only what the user gave is looked at: a value that differs from those in runner's own files. Defaults are meant for runs
of every length, and so are the values of runner's recipes. Marks in the annotations say which knobs are durations
(`InRun`, `Window` in `runner.relations`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from runner import user_paths
from runner.annotations import annotation
from runner.durations import count_and_unit, dates_until, is_date
from runner.errors import ConfigError, shown, wrong
from runner.plain_yaml import conf_folder, loaded_config
from runner.printing import counted
from runner.relations import Fields, InRun, Window
from runner.settings import SETTINGS

_Values = Mapping[str, Any]
_STEP = "at least 1 step"


class RunLength(NamedTuple):
    """The length of a run: in steps, or in epochs as long as its data are not known."""

    epochs: float | None = None
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    batch: int | None = None

    def place(self, duration: str) -> Fraction | None:
        """Return a duration in the unit of the run's length, None if that takes the data."""
        count, unit = count_and_unit(duration)
        if self.total_steps is None:
            sizes = {"epoch": Fraction(1), "%": self.end / 100}
        else:
            sizes = {"step": Fraction(1), "%": Fraction(self.total_steps, 100)}
            sizes |= {"epoch": Fraction(self.steps_per_epoch)} if self.steps_per_epoch else {}
            sizes |= {"example": Fraction(1, self.batch)} if self.batch else {}
        return count * sizes[unit] if unit in sizes else None

    @property
    def end(self) -> Fraction:
        """Return the end of the run in its unit."""
        return Fraction(self.epochs or 0) if self.total_steps is None else Fraction(self.total_steps)

    def is_at_end(self, place: Fraction) -> bool:
        """Return True if a place is at the end of the run or after it, of a run in steps when it is rounded."""
        return place >= self.end if self.total_steps is None else round(place) >= self.total_steps

    def is_after_end(self, place: Fraction) -> bool:
        """Return True if a place is after the end, of a run in steps also when it is rounded."""
        return place > self.end + (0 if self.total_steps is None else Fraction(1, 2))

    def rounds_to_zero(self, place: Fraction) -> bool:
        """Return True if a place is the start of the run when it is rounded to steps."""
        return self.total_steps is not None and round(place) == 0

    def __str__(self) -> str:
        if self.total_steps is None:
            return counted(float(self.epochs or 0), "epoch")
        return counted(self.total_steps, "step")


def length_in(config: _Values) -> RunLength:
    """Return the length of a run as its config gives it."""
    return RunLength(total_steps=config["steps"]) if config["steps"] else RunLength(epochs=config["epochs"])


def unused_settings(config: _Values, length: RunLength, recipe: str | None) -> Iterator[ConfigError]:
    """Yield the error for each given value that has no effect in a run; `recipe` is the option of that group."""
    for key, value, kind, values in _given(config, recipe):
        yield from _errors_in(key, value, kind, values, length)


def refuse_unused(config: _Values, length: RunLength, recipe: str | None) -> None:
    """Raise the first error about a value that has no effect in a run."""
    for error in unused_settings(config, length, recipe):
        raise error


def values_of_user(config: _Values, recipe: str | None) -> dict[str, Any]:
    """Return the values, by key, that no file of runner has."""
    return {key: value for key, value, _, _ in _given(config, recipe)}


def recipe_in(overrides: Iterable[str]) -> str | None:
    """Return the recipe that overrides choose."""
    words = (word.lstrip("+").partition("=") for word in overrides)
    return next((text for key, _, text in words if key == "recipe"), None)


def lines_about_limits(config: _Values, length: RunLength, every: int | Fraction, recipe: str | None) -> Iterator[str]:
    """Yield a line for each given value that is right in itself and will not be reached, or switches a part off.

    A limit that a run does not reach is no mistake: the same patience suits runs of any length, as a time limit does.
    """
    total = length.total_steps or 0
    count = dates_until(total, every) + (not is_date(total, every))
    for key, value, _, values in _given(config, recipe):
        # The first validation is an improvement; a plateau tolerates as many as its patience
        needed = {"patience": 1, "scheduler.patience": 2}.get(key)
        if needed and isinstance(value, int) and count < value + needed:
            yield f"{key}: {value} validations without improvement cannot be reached: the run makes {count}"
        if key == "average.start" and length.is_at_end(length.place(str(value)) or Fraction(0)):
            yield f"{key}: {value} is the end of the run, so the average is the model"
        if key == "average.decay" and values.get("warmup") and (reached := _warm_up_of(value)) > total > 0:
            yield f"{key}: {value} is reached at step {reached}, after the run's {total}; average.warmup sets the decay"
        if key == "mix.p" and value == 0:
            yield f"{key}: 0, so {values['name']} mixes no batch"


def _warm_up_of(decay: float) -> int:
    """Return the step from which on the warm-up of an average no longer limits its decay: (t - 1) / (t + 8) is more."""
    # Rounded, because 9 / (1 - 0.99) is a little more than 900
    return math.ceil(round(9 / (1 - decay), 6)) - 8


def _given(config: _Values, recipe: str | None) -> Iterator[tuple[str, Any, Any, _Values]]:
    """Yield (key, value, type, all values beside it) for each value that no file of runner has."""
    main, asked = _shipped("", "config"), _shipped("recipe", recipe) if recipe else {}
    for key, value in config.items():
        if key in SETTINGS:
            if value not in (main.get(key), asked.get(key)):
                yield key, value, SETTINGS[key], config
            continue
        own = asked.get(key) or {}
        for place, name, knobs, default, chosen in _components(key, value, own):
            for knob, item in knobs.items():
                if item != default.get(knob) and not (knob in chosen and item == chosen[knob]):
                    yield f"{place}.{knob}", item, annotation(key, name, str(knob)), knobs


def _components(group: str, value: Any, own: _Values) -> Iterator[tuple[str, str, _Values, _Values, _Values]]:
    """Yield (key, name, knobs, runner's defaults, the recipe's values) of the components that a group chooses."""
    if not isinstance(value, Mapping):
        return
    if isinstance(name := value.get("name"), str):
        yield group, name, value, _shipped(group, name), own
        return
    for name, knobs in value.items():
        if isinstance(knobs, Mapping):
            yield f"{group}.{name}", str(name), knobs, _shipped(group, str(name)).get(name) or {}, own.get(name) or {}


@cache
def _shipped(group: str, option: str) -> dict[str, Any]:
    """Return the values of runner's own file of an option, empty if there is none."""
    path = conf_folder() / group / f"{option}.yaml"
    return loaded_config(path) if option.isidentifier() and user_paths.is_file(path) else {}


def _errors_in(key: str, value: Any, kind: Any, values: _Values, length: RunLength) -> Iterator[ConfigError]:
    """Yield what is wrong with a value of a type, and with the parts of it."""
    if value is None or kind is None:
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for rule in arguments[1:]:
            if isinstance(rule, InRun):
                yield from _out_of_run(key, value, rule, values, length)
            elif isinstance(rule, Window) and isinstance(value, list):
                yield from _empty_window(key, value, length)
            elif isinstance(rule, Fields) and isinstance(value, Mapping):
                for name, part in rule.types:
                    yield from _errors_in(f"{key}.{name}", value.get(name), part, value, length)
        yield from _errors_in(key, value, arguments[0], values, length)
    elif origin is list and isinstance(value, list):
        yield from _repeated(key, value, arguments[0])
        for i, item in enumerate(value):
            yield from _errors_in(f"{key}[{i}]", item, arguments[0], values, length)
    elif origin is Union or type(kind).__name__ == "UnionType":
        words = [word for option in arguments if get_origin(option) is Literal for word in get_args(option)]
        for option in arguments if value not in words else ():
            yield from _errors_in(key, value, option, values, length)


def _out_of_run(key: str, value: Any, rule: InRun, values: _Values, length: RunLength) -> Iterator[ConfigError]:
    """Yield what is wrong with the place of a duration in a run."""
    text = f"{value}steps" if isinstance(value, int) else value
    place = length.place(text)
    if count_and_unit(text)[0] == 0:
        if not rule.zero:
            yield wrong(key, value, _STEP)
    elif place is not None and not rule.rounds and length.rounds_to_zero(place):
        least = f"{_STEP}, or 0" if rule.zero else _STEP
        yield ConfigError(f"{key}: got {shown(value)}, which rounds to 0 of the run's {length}; must be {least}")
    if place is None:
        return
    if rule.before and length.is_at_end(place):
        yield wrong(key, value, f"before the end of the run ({length})")
    other = values.get(rule.after or rule.within)
    beside = length.place(other) if other else None
    named = f"{key.rpartition('.')[0]}.{rule.after or rule.within}={other}"
    if rule.within and beside is not None and round(place) > max(1, round(beside)):
        yield wrong(key, value, f"at most the {round(beside)} steps of {named}")
    elif rule.end and length.is_after_end((beside or 0) + place):
        left = f"what {named} leaves of " if beside else ""
        yield wrong(key, value, f"at most {left}the run's {length}")


def _empty_window(key: str, window: list[Any], length: RunLength) -> Iterator[ConfigError]:
    """Yield what is wrong with a window [from, until]."""
    first, until = (*window, None, None)[:2]
    for name, text, rule in (
        ("[0]", first, InRun(zero=True, rounds=True, end=True)),
        ("[1]", until, InRun(end=True)),
    ):
        if text is not None:
            yield from _out_of_run(f"{key}{name}", text, rule, {}, length)
    if first is not None and until is not None:
        begin, end = length.place(first), length.place(until)
        same_unit = count_and_unit(first)[1] == count_and_unit(until)[1]
        if same_unit and count_and_unit(first)[0] >= count_and_unit(until)[0]:
            begin, end = Fraction(1), Fraction(0)
        if begin is not None and end is not None and begin >= end:
            place, knob = key.partition("[")[0], key.rpartition(".")[2]
            yield ConfigError(f"{place}: got {knob}=[{first},{until}], must begin before it ends")


def _repeated(key: str, values: list[Any], kind: Any) -> Iterator[ConfigError]:
    """Yield the error for an entry of a list of words or of dates that is there twice, or a rule that is."""
    words = get_origin(kind) is Literal or any(isinstance(rule, InRun) for rule in getattr(kind, "__metadata__", ()))
    for i, value in enumerate(values):
        if words and value in values[:i]:
            yield ConfigError(f"{key}: given twice ({shown(value)})")
        if isinstance(value, Mapping) and "match" in value:
            earlier = [each.get("match") for each in values[:i] if isinstance(each, Mapping)]
            if value["match"] in earlier:
                at = earlier.index(value["match"])
                yield ConfigError(
                    f"{key}[{i}].match: got {shown(value['match'])}, which is that of {key}[{at}]; "
                    "the first rule that matches counts, so this one would do nothing"
                )
