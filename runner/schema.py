"""Types, ranges and durations of config values; imports no torch.

`check` is the only place where a value meets its type: at the front door, and again in the registry that builds.
"""

from __future__ import annotations

import math
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from runner.errors import ConfigError, unknown, wrong
from runner.relations import ByValue, Fields, InRun, Regular, Window, is_relation
from runner.roles import Mark


class Range(ByValue):
    """Bounds of a number, closed unless said open."""

    def __init__(
        self, low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
    ) -> None:
        self.low, self.high, self.open_low, self.open_high = low, high, open_low, open_high

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"{'>' if self.open_low else '>='} {self.low:.12g}" if self.low > -math.inf else ""
        high = f"{'<' if self.open_high else '<='} {self.high:.12g}" if self.high < math.inf else ""
        return " and ".join(filter(None, (low, high)))


class Pattern(ByValue):
    """The form of a string, with the words that explain it."""

    def __init__(self, expression: str, says: str) -> None:
        self._text, self.says = expression, says

    @property
    def expression(self) -> re.Pattern[str]:
        """Return the compiled expression, which `re` keeps."""
        return re.compile(self._text)

    def __repr__(self) -> str:
        return f"Pattern({self.says!r})"

    def __contains__(self, text: str) -> bool:
        return self.expression.fullmatch(text) is not None


class NotEmpty(ByValue):
    """Marks a list that must name at least one thing."""


_ANY = Range()


class Pair(ByValue):
    """Two numbers, with the words that explain them; the first of bounds is not above the second.

    With `square` one number stands for two equal ones; the config of a run has two.
    """

    def __init__(self, says: str, *, bounds: bool = False, first: Range = _ANY, square: bool = False) -> None:
        self.says, self.bounds, self.first, self.square = says, bounds, first, square

    def __contains__(self, values: list[float]) -> bool:
        return len(values) == 2 and values[0] in self.first and not (self.bounds and values[0] > values[1])


BOUNDS = Pair("[low, high]", bounds=True)
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Unit = Annotated[float, Range(0, 1)]
HalfOpenUnit = Annotated[float, Range(0, 1, open_high=True)]
PositiveInt = Annotated[int, Range(1)]
ImageSize = Annotated[list[PositiveInt], Pair("[height, width], or one number for a square", square=True)]
NonNegativeInt = Annotated[int, Range(0)]
Duration = Annotated[
    str,
    Pattern(
        r"(?P<count>\d{1,15}(\.\d{0,30})?|\.\d{1,30})(?P<unit>steps?|epochs?|examples?|%)",
        "a duration like 500steps, 2epochs, 10000examples or 5%",
    ),
]
FolderName = Annotated[str, Pattern(r"(?!\.)[A-Za-z0-9._=,+-]{1,120}", "letters, digits and . _ = , + - (at most 120)")]
Origin = Annotated[str, Pattern(r"[0-9a-f]{8}@[0-9]{1,12}", "hash and step of a run, as in 0123abcd@200")]
Sha256 = Annotated[str, Pattern(r"[0-9a-f]{64}", "a SHA-256 (64 hex digits)")]
TagName = Annotated[str, Pattern(r"[A-Za-z0-9._-]{1,60}", "letters, digits and . _ - (at most 60)")]
Uri = Annotated[
    str,
    Pattern(
        r"(?!\w+://[^/@\s]*:[^/]*@)(?!\S*[?&]\w*passw(or)?d=)\w+:\S+", "a URI (sqlite:///a.db), without a password"
    ),
]
ModuleName = Annotated[str, Pattern(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "the name of a module, as in my_lab.parts")]


def check(key: str, value: Any, annotation: Any) -> Any:
    """Return `value` as the annotated type (an int becomes a float where one is asked for), or raise ConfigError."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _check_annotated(key, value, annotation)
    if origin is Literal:
        return _check_literal(key, value, get_args(annotation))
    if origin in (Union, types.UnionType):
        return _check_union(key, value, get_args(annotation))
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise wrong(key, value, "a list [a,b,...]")
        return [check(f"{key}[{i}]", item, get_args(annotation)[0]) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise wrong(key, value, "a mapping {a: b}")
        return {name: check(f"{key}.{name}", item, get_args(annotation)[1]) for name, item in value.items()}
    return _check_plain(key, value, annotation)


def _check_annotated(key: str, value: Any, annotation: Any) -> Any:
    """Check a number against its range, a string against its pattern, or a list against what must be in it."""
    kind, rule = alone(annotation)
    if rule is None:
        return check(key, value, kind)
    if isinstance(rule, (Pattern, Regular)):
        if not isinstance(value, str) or value not in rule:
            raise wrong(key, value, rule.says)
        return value
    if isinstance(rule, Fields):
        return _check_fields(key, value, rule)
    if isinstance(rule, NotEmpty):
        if value == []:
            raise ConfigError(f"{key}: got [], must name at least one")
        return check(key, value, kind)
    if is_square(value, annotation):
        return [check(key, value, get_args(kind)[0])] * 2
    if isinstance(rule, Pair) and not isinstance(value, (list, tuple)):
        raise wrong(key, value, rule.says)
    checked = check(key, value, kind)
    if checked not in rule:
        raise wrong(key, value, rule.says if isinstance(rule, Pair) else str(rule))
    return checked


def is_square(value: Any, annotation: Any) -> bool:
    """Return True if a value is one number where the annotated type takes two, such as height and width."""
    return type(value) is int and isinstance(rule := alone(annotation)[1], Pair) and rule.square


def alone(annotation: Any) -> tuple[Any, Any]:
    """Return what is annotated, and the rule about its value alone, if there is one; marks are no rules."""
    kind, *rules = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    return kind, next(
        (rule for rule in rules if not (is_relation(rule) or isinstance(rule, Mark | InRun | Window))), None
    )


def _check_fields(key: str, values: Any, rule: Fields) -> dict[str, Any]:
    """Check that a mapping has the keys that it may and must have, with values of their types."""
    types = dict(rule.types)
    if not isinstance(values, dict):
        raise wrong(key, values, "a mapping {a: b}")
    for name in values:
        if name not in types:
            raise unknown(f"{key}.{name}", "key", str(name), types)
    if len(given := [name for name in rule.one_of if name in values]) > 1:
        raise ConfigError(f"{key}.{given[0]}: given together with {given[1]}; must be one of the two")
    asked = dict.fromkeys(rule.needed) | values
    return {name: check(f"{key}.{name}", value, types[name]) for name, value in asked.items()}


def _check_literal(key: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Check a word against the words allowed."""
    if value not in choices or isinstance(value, bool) != any(choice is value for choice in (True, False)):
        raise unknown(key, "value", str(value), map(str, choices))
    return value


def _check_union(key: str, value: Any, options: tuple[Any, ...]) -> Any:
    """Return the value as the first of the types that takes it."""
    if type(None) not in options:
        return _check_options(key, value, options)
    if value is None:
        return None
    try:
        return _check_options(key, value, options)
    except ConfigError as error:
        if str(value).lower() in _NONE:
            raise ConfigError(f"{error}; did you mean 'null'?") from error
        raise


def _check_options(key: str, value: Any, options: tuple[Any, ...]) -> Any:
    """Return the value, which is not null, as the first of the types that takes it."""
    options = tuple(option for option in options if option is not type(None))
    likely = tuple(option for option in options if _may_take(option, value))
    # The error about a mapping's own keys says more than one about all types
    options = likely or options if isinstance(value, dict) else options
    lists = [option for option in options if get_origin(option) is list]
    if isinstance(value, (list, tuple)) and len(lists) == 1:
        # Names the entry that is wrong
        return check(key, value, lists[0])
    if len(options) == 1:
        return check(key, value, options[0])
    for option in likely:
        try:
            return check(key, value, option)
        except ConfigError:
            continue
    raise wrong(key, value, " or ".join(map(described, options)))


def _may_take(annotation: Any, value: Any) -> bool:
    """Return False if a value is none of the words of a type, no mapping for one, or of another plain type."""
    kind = alone(annotation)[0]
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if isinstance(value, dict):
        return get_origin(kind) is dict
    return kind not in PLAIN or type(value) is kind or (kind is float and type(value) is int)


def described(annotation: Any) -> str:
    """Return what a type takes, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, rule = alone(annotation)
        if rule is None or isinstance(rule, (NotEmpty, Fields)):
            return described(kind)
        return rule.says if isinstance(rule, (Pattern, Pair)) else f"{PLAIN[kind]} {rule}"
    if origin is Literal:
        return ", ".join(f"'{choice}'" for choice in arguments)
    return {list: "a list [a,b,...]", dict: "a mapping {a: b}"}.get(origin) or PLAIN[annotation]


_NONE = ("none", "nil", "nan", "no", "off", "false")  # what people write for null
PLAIN = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _check_plain(key: str, value: Any, kind: type) -> Any:
    """Check a number, a truth value or a text; a bool is never a number."""
    if kind is float and type(value) is int:
        value = float(value)
    fits = type(value) is kind and value == value
    if fits and value not in (math.inf, -math.inf):
        return value
    raise wrong(key, value, "finite" if fits else PLAIN[kind])
