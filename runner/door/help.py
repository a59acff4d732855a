"""The page of `--help`, read from the config files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

import runner
from runner.door.options import RECIPE, Conf
from runner.settings import SETTINGS

WIDTH = 100
FIELD = re.compile(r"(?P<key>\w+): (?P<value>.*?) +# (?P<comment>.*)")
TITLE = "The lab bench for training neural networks: every part by name, in one command."
USAGE = """\
runner [key=value ...] [-m] [--config-dir DIR] [--cfg job]

  -m, --multirun       run every combination of the values that commas separate
  --cfg job            print the config of this command line (--resolve: without ${...}) and end
  --config-dir DIR     add your own options and recipes: DIR/optim/mine.yaml, DIR/recipe/mine.yaml
  --config-name NAME   start from another config than `config`
  --info, -sc, --version, -h, --help"""
EXAMPLES = (
    ("runner", "a small ResNet on scikit-learn's digits"),
    ("runner model=mlp optim=adam optim.lr=0.01", "other parts, another value"),
    ("runner 'augment=[crop,hflip]' 'regularizer=[l2]'", "groups that take several, in order"),
    ("runner -m optim=sgd,adam seed=0,1,2", "a sweep: 6 runs, one folder each"),
    ("runner resume=outputs/optim=adam", "go on with a run that was stopped"),
)


def help_text(conf: Conf) -> str:
    """Return what a user can choose and set, at most 100 columns wide."""
    sections = (
        (f"runner {runner.__version__}", [TITLE]),
        ("Usage", USAGE.splitlines()),
        ("Choose one of each, as in model=resnet (* is the default)", chosen(conf, several=False)),
        ("Choose any number, as in 'augment=[crop,hflip]', in order", chosen(conf, several=True)),
        ("Set, as in epochs=10; a part's own values as in optim.lr=0.1 (--cfg job shows them all)", fields(conf)),
        ("Examples", examples()),
    )
    return "\n".join("\n".join([title, *(f"  {line}".rstrip() for line in lines), ""]) for title, lines in sections)


def chosen(conf: Conf, *, several: bool) -> Iterator[str]:
    """Yield the groups with their options, wrapped."""
    for group, default in conf.defaults.items():
        marked = default if isinstance(default, list) else [default]
        if conf.several(group) == several and (conf.files[group] or group != RECIPE):
            words = "  ".join(f"{option}*" if option in marked else option for option in sorted(conf.files[group]))
            indent = " " * 15
            yield from textwrap.wrap(
                words, WIDTH - 2, initial_indent=f"{group:<15}", subsequent_indent=indent, break_on_hyphens=False
            ) or [group]


def fields(conf: Conf) -> Iterator[str]:
    """Yield the global fields with default and comment, as config.yaml has them."""
    for line in (conf.folders[0] / "config.yaml").read_text(encoding="utf-8").splitlines():
        if (match := FIELD.fullmatch(line)) and match["key"] in SETTINGS:
            start = f"{match['key'] + '=' + match['value']:<24} "
            yield from textwrap.wrap(
                start + match["comment"], WIDTH - 2, subsequent_indent=" " * len(start), drop_whitespace=True
            )


def examples() -> Iterator[str]:
    """Yield the examples with what they do."""
    for command, meaning in EXAMPLES:
        yield f"{command:<52}{meaning}"


def version_text() -> str:
    """Return our version and those that results depend on."""
    return ", ".join(
        [f"runner {runner.__version__}", *map(installed, ("torch", "hydra-core")), f"python {python_version()}"]
    )


def installed(package: str) -> str:
    """Return a package with its version, found without importing it."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"
