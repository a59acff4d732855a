"""Parse the flags of the command line, which may be anywhere among the overrides."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from runner.errors import ConfigError, unknown

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
COMPLETION = ("-sc", "--shell-completion")


class Arguments(NamedTuple):
    """The parsed command line: flags and overrides."""

    overrides: tuple[str, ...]
    help: bool
    version: bool
    cfg: str | None
    resolve: bool
    multirun: bool
    config_dir: str | None
    config_name: str
    info: str | None


class _Parser(argparse.ArgumentParser):
    """argparse that raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with argparse's words."""
        raise ConfigError(message.removeprefix("argument "))


class _Once(argparse.Action):
    """Store a flag's value; a second value is an error."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set the value."""
        if getattr(namespace, self.dest) != self.default:
            raise ConfigError(f"{option_string}: given twice ('{getattr(namespace, self.dest)}', '{values}')")
        setattr(namespace, self.dest, values)


def read_arguments(argv: Sequence[str]) -> Arguments:
    """Return the flags and overrides of a command line; raises ConfigError for an unknown flag."""
    parser = _flags()
    known, extra = parser.parse_known_intermixed_args(list(argv))
    for word in extra:
        flag, _, value = word.partition("=")
        flags = re.findall(r"--[a-z][a-z-]*", parser.format_help())
        raise unknown(flag, "flag", flag, flags, hint=_instead(flag, value or _after(argv, word), flags))
    if known.cfg and known.multirun:
        raise ConfigError("--cfg: not supported with -m; it prints the config of one run")
    if known.resolve and not known.cfg:
        raise ConfigError("--resolve: requires --cfg job")
    return Arguments(**{**vars(known), "overrides": tuple(known.overrides)})


def _after(argv: Sequence[str], word: str) -> str:
    """Return the value that stands after a flag, `true` if there is none."""
    following = list(argv)[list(argv).index(word) + 1 :][:1] if word in argv else []
    return next((each for each in following if "=" not in each and not each.startswith("-")), "true")


def _instead(flag: str, value: str, flags: Sequence[str]) -> str:
    """Return which setting an unknown flag means, in words; empty where it is a flag that is misspelled."""
    # Late: only this line needs them
    from runner.door.suggestions import flag_hint
    from runner.spelling import close, nearest

    if close(flag, nearest(flag, flags)[0]):
        return ""
    return flag_hint(flag, value)


def _flags() -> _Parser:
    """Return the parser of the flags, named as in Hydra."""
    parser = _Parser(prog="runner", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", action=_Once)
    parser.add_argument("--config-name", "-cn", default="config", action=_Once)
    parser.add_argument("--info", "-i", nargs="?", const="all", choices=_INFO)
    return parser
