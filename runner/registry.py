"""The registry of components: the only place that turns an option's name into an object.

A component is a function (or class) under `@register("<kind>")`. Its positional parameters are run-time context, which
it asks for by name; its keyword-only parameters are knobs, whose values are in `conf/<kind>/<name>.yaml`.

Knobs that many components share are declared once, in a class under `@shared_knobs`. A component asks for an object of
that class by a positional parameter annotated with it. The class's keyword-only parameters then count as knobs of the
component, and its positional parameters are context in turn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from runner.errors import PLUGIN, ConfigError, PluginError, unknown
from runner.plain_yaml import conf_folder, read_text, yaml_files
from runner.relations import check_relations
from runner.schema import check
from runner.user_paths import near

_Factory = TypeVar("_Factory", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type)
_Value = TypeVar("_Value")
Config = Mapping[str, Any]

# The module of what a notebook or a script defines itself
MAIN = "__main__"
_PACKAGE = __name__.partition(".")[0]
# What is wrong with what a component of a plugin returns, by kind
_product_checks: dict[str, Callable[[Any], str | None]] = {}
_parts: dict[str, dict[str, Callable[..., Any]]] = {}
# The classes under `@shared_knobs`
_knob_classes: set[type] = set()


def shared_knobs(kind: _Class) -> _Class:
    """Mark a class whose keyword-only parameters are knobs of every component that asks for an object of the class."""
    _knob_classes.add(kind)
    return kind


def register(kind: str, name: str | None = None) -> Callable[[_Factory], _Factory]:
    """Register a component under a name, by default its own in lower case; raises ConfigError if the name is taken."""

    def enter(factory: _Factory) -> _Factory:
        word = name or factory.__name__.lower()
        if factory.__module__ == MAIN and (conf_folder() / kind / f"{word}.yaml").is_file():
            raise ConfigError(f"{kind}={word}: comes with runner; register yours under another name")
        taken = _parts.setdefault(kind, {}).get(word)
        if taken is not None and _place(taken) != _place(factory):
            raise ConfigError(f"{kind}={word} is registered twice: by {_place(taken)} and by {_place(factory)}")
        _parts[kind][word] = factory
        return factory

    return enter


def _place(factory: Callable[..., Any]) -> str:
    """Return where a component is defined."""
    return f"{factory.__module__}.{factory.__qualname__}"


def names(kind: str) -> list[str]:
    """Return the registered names of a kind, sorted."""
    return sorted(_parts.get(kind, {}))


def registered_in(module: str) -> list[tuple[str, str, Callable[..., Any]]]:
    """Return kind, name and factory of each component that a module has registered."""
    return [
        (kind, name, factory)
        for kind, found in _parts.items()
        for name, factory in found.items()
        if factory.__module__ == module
    ]


def find(kind: str, name: str) -> Callable[..., Any]:
    """Return the component registered under a name."""
    if name not in _parts.get(kind, {}):
        raise unknown(kind, "option", name, names(kind))
    return _parts[kind][name]


def knobs(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the config keys that a component takes, with their types; those of shared classes come first."""
    hints = _types(factory)
    own = {p.name: hints.get(p.name, Any) for p in _parameters(factory) if p.kind is p.KEYWORD_ONLY}
    shared = {name: kind for each in _shared(factory).values() for name, kind in knobs(each).items()}
    return shared | own


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a component."""
    return list(inspect.signature(factory).parameters.values())


def _types(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a component's parameters."""
    signed = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    return get_type_hints(signed, include_extras=True)


def _shared(factory: Callable[..., Any]) -> dict[str, type]:
    """Return the positional parameters of a component that bring shared knobs, with their classes."""
    hints = _types(factory)
    asked_for = {p.name: hints.get(p.name) for p in _parameters(factory) if p.kind is p.POSITIONAL_OR_KEYWORD}
    return {name: kind for name, kind in asked_for.items() if isinstance(kind, type) and kind in _knob_classes}


def build(kind: str, config: Mapping[str, Any], /, *, key: str | None = None, **context: Any) -> Any:
    """Build the component that `config["name"]` names, with its knobs from `config` and the context that it asks for.

    `key` is the config's key in error messages, by default the kind. Raises ConfigError for an unknown name, for
    missing, unknown, mistyped or out-of-range knobs, and for context that is not available.
    """
    values = dict(config)
    name = values.pop("name")
    factory = find(kind, name)
    made = _make(factory, f"{kind}={name}", checked(factory, key or kind, values), context)
    if kind in _product_checks and is_plugins(factory) and (problem := _product_checks[kind](made)):
        raise wrong_product(kind, name, problem)
    return made


def check_products(kind: str, problem: Callable[[Any], str | None]) -> None:
    """Have what the components of plugins return checked by a function that says what is wrong, None if nothing is."""
    _product_checks[kind] = problem


def is_plugins(factory: Callable[..., Any]) -> bool:
    """Return True if a component does not come with runner."""
    return factory.__module__.partition(".")[0] != _PACKAGE


def wrong_product(kind: str, name: str, problem: str) -> PluginError:
    """Return the error for a component of a plugin that returns something wrong, with its file and line."""
    factory = inspect.unwrap(find(kind, name))
    code = getattr(factory, "__code__", None) or getattr(getattr(factory, "__init__", None), "__code__", None)
    in_file = factory.__module__ != MAIN
    place = f"{near(code.co_filename)}:{code.co_firstlineno}" if code and in_file else _place(factory)
    return PluginError(f"{PLUGIN}{place}: {kind}={name} {problem}")


def apply(function: Callable[..., _Value], kind: str, config: Mapping[str, Any]) -> _Value:
    """Call a function with those checked knobs of a component, and those objects of shared knobs, that it asks for."""
    values = dict(config)
    name = values.pop("name")
    found: _Value = _make(function, f"{kind}={name}", checked(find(kind, name), kind, values), {})
    return found


def build_many(kind: str, config: Config, **context: Any) -> list[Any]:
    """Build the components of a pick-many group, in the order in which the config lists them."""
    chosen = config[kind] or {}
    return [
        build(kind, {"name": name, **(knobs or {})}, key=f"{kind}.{name}", **context) for name, knobs in chosen.items()
    ]


def _make(factory: Callable[..., Any], what: str, values: Mapping[str, Any], context: Mapping[str, Any]) -> Any:
    """Call a component with its knobs from `values`, and with the context and shared objects that it asks for."""
    shared = {name: _make(each, what, values, context) for name, each in _shared(factory).items()}
    own = {p.name: values[p.name] for p in _parameters(factory) if p.kind is p.KEYWORD_ONLY}
    return factory(**_asked(factory, what, {**context, **shared}), **own)


def checked(factory: Callable[..., Any], key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs with their types, ranges and relations checked."""
    wanted = knobs(factory)
    for name in values:
        if name not in wanted:
            raise unknown(f"{key}.{name}", "key", name, wanted)
    for name in wanted:
        if name not in values:
            raise ConfigError(f"{key}.{name}: missing, and a knob has no default outside the YAML")
    typed = {
        name: check(f"{key}.{name}", value, wanted[name]) if wanted[name] is not Any else value
        for name, value in values.items()
    }
    check_relations(key, typed, wanted)
    return typed


def _asked(factory: Callable[..., Any], what: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the context that a component asks for by parameter name.

    A parameter whose type allows None gets None where the caller cannot give it.
    """
    hints = _types(factory)
    wanted = [p.name for p in _parameters(factory) if p.kind is p.POSITIONAL_OR_KEYWORD]
    missing = [name for name in wanted if name not in context and type(None) not in get_args(hints.get(name))]
    if missing:
        raise ConfigError(
            f"{what}: asks for '{missing[0]}', which is not available here (available: {', '.join(context)})"
        )
    return {name: context.get(name) for name in wanted}


def asks(kind: str, name: str, context: str) -> bool:
    """Return True if a component asks for a piece of context, which may be expensive to make."""
    return context in inspect.signature(find(kind, name)).parameters


def option_config(kind: str, name: str, *, key: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the config of an option: the values of its YAML, or only the name if a user's component has no YAML.

    `key` is the key for error messages, `folders` are the config folders, by default runner's. Raises ConfigError for
    an unknown option.
    """
    files = {path.stem: path for folder in folders or [conf_folder()] for path in yaml_files(folder / kind)}
    if name in files:
        return dict(yaml.safe_load(read_text(files[name])))
    if name in _parts.get(kind, {}):
        return {"name": name}
    raise unknown(key, "option", name, {*files, *names(kind)})
