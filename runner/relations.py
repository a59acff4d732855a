"""Forms of numbers, words and mappings, and what knobs of one component have to do with each other; imports no torch.

Both stand in the types of the knobs, so that the front door refuses what breaks them before torch is imported.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, Protocol, TypeGuard

from runner.errors import ConfigError, shown


class ByValue:
    """Base of the objects in annotations: equal to another of the same class with equal fields.

    They are no dataclasses, because each command line defines them all, and a frozen dataclass takes 0.5 ms.
    """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class Whole(ByValue):
    """Whole numbers `first`, `first + step`, ... and those of `also`, with the words that explain them."""

    def __init__(self, says: str, first: float = float("inf"), step: int = 1, also: tuple[int, ...] = ()) -> None:
        self.says, self.first, self.step, self.also = says, first, step, also

    def __contains__(self, value: int) -> bool:
        return value in self.also or (value >= self.first and (value - self.first) % self.step == 0)

    def __str__(self) -> str:
        return self.says


class OneOf(ByValue):
    """Some values."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return " or ".join(map(shown, self.values))


class Regular(ByValue):
    """A regular expression, with the words that say for what."""

    def __init__(self, says: str) -> None:
        self.says = says

    def __contains__(self, text: str) -> bool:
        try:
            return bool(re.compile(text).pattern)
        except re.error:
            return False


class OfLength(ByValue):
    """Lists of `count` entries, or up to `most`, with the words that explain them."""

    def __init__(self, count: int, says: str, *, most: int | None = None) -> None:
        self.count, self.says, self.most = count, says, count if most is None else most

    def __contains__(self, values: list[Any]) -> bool:
        return self.count <= len(values) <= self.most

    def __str__(self) -> str:
        return self.says


class Fields(ByValue):
    """The keys of a mapping with their types, those that must be there, and those that exclude one another.

    A type may have a role, as that of a knob: `("name", Annotated[TagName, Role.OBSERVATION])`.
    """

    def __init__(
        self, types: tuple[tuple[str, Any], ...], needed: tuple[str, ...], one_of: tuple[str, ...] = ()
    ) -> None:
        self.types, self.needed, self.one_of = types, needed, one_of


class InRun(ByValue):
    """Where in a run a duration, or a number of steps, has an effect. A value that has none is refused before step 1.

    Without `zero` it is at least one step, and with `rounds` a small one may round to 0. With `end` it is at most the
    rest of the run after the duration of the knob `after`, with `before` less than the run, with `within` at most the
    duration of that knob. `runner.unused_settings` checks what the user gave.
    """

    def __init__(
        self,
        *,
        zero: bool = False,
        rounds: bool = False,
        end: bool = False,
        before: bool = False,
        after: str = "",
        within: str = "",
    ) -> None:
        self.zero, self.rounds, self.end, self.before = zero, rounds, end, before
        self.after, self.within = after, within


class Window(ByValue):
    """Marks two durations, `[from, until]`: the part of a run between them, null for an open end."""


class _Relation(Protocol):
    """A rule about a knob that reads another of its component, `knob`; it says nothing if one of the two is null."""

    knob: str

    def broken(self, key: str, value: Any, values: Mapping[str, Any]) -> str | None:
        """Return what the value must do, None if it does; `values` are all knobs of the component at `key`."""
        ...


class _Other(ByValue):
    """Base of the relations to one other knob."""

    def __init__(self, knob: str) -> None:
        self.knob = knob


class Divides(_Other):
    """The number divides that of another knob."""

    def broken(self, key: str, value: int, values: Mapping[str, Any]) -> str | None:
        """Return what the number must divide if it does not."""
        return f"divide {key}.{self.knob} ({values[self.knob]})" if values[self.knob] % value else None


class AtMost(_Other):
    """The number is not above that of another knob."""

    def broken(self, key: str, value: float, values: Mapping[str, Any]) -> str | None:
        """Return what the number must not be above if it is."""
        return f"be <= {key}.{self.knob} ({values[self.knob]:g})" if value > values[self.knob] else None


class Leaves(_Other):
    """A share of a whole that leaves something of it beside the share of another knob."""

    def broken(self, key: str, value: float, values: Mapping[str, Any]) -> str | None:
        """Return what the share must be below if the two leave nothing."""
        other = values[self.knob]
        return f"be < 1 - {key}.{self.knob} (1 - {other:g})" if value + other >= 1 else None


class With(_Other):
    """The value is among some where another knob has a certain one; `allowed` says in words which these are."""

    def __init__(self, knob: str, other: str | bool | float, allowed: Container[Any]) -> None:
        super().__init__(knob)
        self.other, self.allowed = other, allowed

    def broken(self, key: str, value: Any, values: Mapping[str, Any]) -> str | None:
        """Return what goes with the other knob's value if this does not."""
        if values[self.knob] != self.other or value in self.allowed:
            return None
        return f"be {self.allowed} with {self.knob}={self.other if isinstance(self.other, str) else shown(self.other)}"


class NotWithOption(_Other):
    """The value is none of certain ones with some options of a group; `reason` says why."""

    def __init__(self, group: str, options: tuple[str, ...], refused: tuple[str, ...], reason: str) -> None:
        super().__init__(group)
        self.options, self.refused, self.reason = options, refused, reason

    def broken(self, key: str, value: Any, values: Mapping[str, Any]) -> str | None:
        """Return what the value must be if it does not go with the option."""
        option = values[self.knob].get("name")
        if value not in self.refused or option not in self.options:
            return None
        return f"be another one with {self.knob}={option}: {self.reason}"


def is_relation(rule: object) -> TypeGuard[_Relation]:
    """Return True for a rule that reads another knob.

    An `isinstance` of a protocol takes ten times as long, and the config of each trial asks for hundreds of rules.
    """
    return callable(getattr(type(rule), "broken", None))


def check_relations(key: str, values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first knob of a component that does not go with the others, each right by itself.

    `key` is where the component is in the config; "" for the fields at its top.
    """
    for knob, kind in types.items():
        for rule in getattr(kind, "__metadata__", ()):
            if not is_relation(rule) or None in (values[knob], values.get(rule.knob)):
                continue
            if words := rule.broken(key, values[knob], values):
                place = f"{key}.{knob}" if key else knob
                raise ConfigError(f"{place}: got {shown(values[knob])}, must {words}")
