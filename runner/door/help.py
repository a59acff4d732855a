"""The page of `--help`, read from the config files."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator

import runner
from runner.door.options import RECIPE, Conf

# Fewest and most columns of the page
_LEAST, _MOST = 60, 100
_FIELD = re.compile(r"(?P<key>\w+): (?P<value>.*?) +# (?P<comment>.*)")
_TITLE = "A lab bench for training neural networks: all components by name, in one command."
_FLAGS = (
    ("-m, --multirun", "run every combination of the values that commas separate"),
    ("--cfg job", "print the config of this command line; with --resolve, references are resolved"),
    ("--config-dir DIR", "add your own options and recipes: DIR/optim/mine.yaml, DIR/recipe/mine.yaml"),
    ("--config-name NAME", "start from another config than `config`"),
    ("--info [WHAT]", "print what Hydra knows: config, defaults, defaults-tree, plugins, searchpath"),
    ("--shell-completion, -sc", 'complete keys and values: eval "$(runner -sc install=bash)", also zsh and fish'),
    ("--version", "print the versions that results depend on"),
    ("-h, --help", "print this page"),
)
_EXAMPLES = (
    ("runner", "a small ResNet on scikit-learn's digits"),
    ("runner model=mlp optim=adam optim.lr=0.01", "other components, another value"),
    ("runner 'augment=[crop,hflip]' 'regularizer=[l2]'", "groups that take several options, in order"),
    ("runner -m optim=sgd,adam seed=0,1,2", "a sweep: 6 runs, each in its own folder"),
    ("runner resume=outputs/optim=adam", "resume a run that was interrupted"),
)


def help_text(conf: Conf, columns: int | None = None) -> str:
    """Return all options and settings, as wide as the terminal (60 to 100 columns) unless `columns` is given."""
    width = min(_MOST, max(_LEAST, columns or _terminal_columns())) - 2
    sections = (
        (f"runner {runner.__version__}", _wrapped(_TITLE, width)),
        ("Usage", ["runner [key=value ...] [-m] [--config-dir DIR] [--cfg job]", "", *_table(_FLAGS, 25, width)]),
        ("Groups with one option, as in model=resnet (* marks the default)", _groups(conf, width, several=False)),
        ("Groups with any number of options, as in 'augment=[crop,hflip]'", _groups(conf, width, several=True)),
        ("Settings, as in epochs=10; values of a component as in optim.lr=0.1", _table(_settings(conf), 25, width)),
        ("Examples", _table(_EXAMPLES, 52 if width > 90 else width, width)),
    )
    return "\n".join("\n".join([title, *(f"  {line}".rstrip() for line in lines), ""]) for title, lines in sections)


def _terminal_columns() -> int:
    """Return the width of the terminal, the maximum if standard output is not a terminal."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        return _MOST


def _wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )


def _table(rows: Iterable[tuple[str, str]], column: int, width: int) -> Iterator[str]:
    """Yield rows of two columns; the second begins below where the first leaves no room."""
    for left, right in rows:
        if len(left) < column < width:
            yield from _wrapped(right, width, f"{left:<{column}}", " " * column)
        else:
            yield left
            yield from _wrapped(right, width, *[" " * (column if column < width else 4)] * 2)


def _groups(conf: Conf, width: int, *, several: bool) -> Iterator[str]:
    """Yield the groups with their options."""
    for group, default in conf.defaults.items():
        marked = default if isinstance(default, list) else [default]
        if conf.several(group) == several and (conf.files[group] or group != RECIPE):
            words = "  ".join(f"{option}*" if option in marked else option for option in sorted(conf.files[group]))
            yield from _wrapped(words, width, f"{group:<15}", " " * 15) or [group]


def _settings(conf: Conf) -> Iterator[tuple[str, str]]:
    """Yield the settings with default and comment, as config.yaml has them."""
    for line in (conf.folders[0] / "config.yaml").read_text(encoding="utf-8").splitlines():
        if (match := _FIELD.fullmatch(line)) and match["key"] in conf.settings:
            yield f"{match['key']}={match['value']}", match["comment"]


def version_text() -> str:
    """Return the version of runner and of the packages that results depend on."""
    # Late: `--help` takes a sixth longer with it
    from platform import python_version

    packages = [_installed(package) for package in ("torch", "hydra-core")]
    return ", ".join([f"runner {runner.__version__}", *packages, f"python {python_version()}"])


def _installed(package: str) -> str:
    """Return a package with its version, found without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"
