"""task=list: every group, every option, every knob, in words."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import runner.components  # noqa: F401  (registers them)
from runner.errors import ConfigError, unknown
from runner.registry import register
from runner.roles import Role
from runner.tasks import load_tasks
from runner.tasks.catalogue import Group, Knob, Option, catalogue
from runner.tasks.job import Job

if TYPE_CHECKING:
    from rich.text import Text

WIDTH = 100
RECIPE = "recipe"
SETTING = 26  # columns of a knob and its default, at most
COMMAND = "python -m runner task=list task.format=markdown > docs/catalogue.md"


@register("task", name="list")
def list_task(
    job: Job,
    *,
    kind: Annotated[str | None, Role.OBSERVATION],
    format: Annotated[Literal["text", "markdown"], Role.OBSERVATION],  # noqa: A002
) -> int:
    """Print what may be chosen and set, the user's own options included, as text or as Markdown."""
    if not job.folders:
        raise ConfigError("task: list shows what there is once, and not in a sweep; leave -m out")
    load_tasks()
    groups = catalogue(job.folders, plugins=bool(job.config["plugins"]))
    if kind is not None:
        groups = [group for group in groups if group.name == kind] or refuse(kind, groups)
    show(markdown(groups) if format == "markdown" else text(groups))
    return 0


def refuse(kind: str, groups: list[Group]) -> list[Group]:
    """Raise ConfigError for a kind that is none of the groups."""
    raise unknown("task.kind", "kind", kind, [group.name for group in groups])


def show(page: str) -> None:
    """Write a page to standard output; a reader that stops early (`| head`) is no error."""
    try:
        sys.stdout.write(page)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def text(groups: list[Group]) -> str:
    """Return the groups as text of at most 100 columns, with colours where standard output is a terminal."""
    from rich.console import Console

    screen = Console(file=sys.stdout, highlight=False, markup=False)
    with screen.capture() as page:
        for group in groups:
            for line in described(group):
                screen.print(line, soft_wrap=True)
    return re.sub(" +$", "", page.get(), flags=re.MULTILINE)


def described(group: Group) -> Iterator[Text]:
    """Yield the lines of a group."""
    from rich.text import Text

    column = max(len(option.name) for option in group.options) + 4
    how, example, default = invitation(group)
    title, *more = wrapped(f"{group.name}  {how}: {example}; default {default}", 0, hanging=4)
    yield Text.assemble((group.name, "bold"), title[len(group.name) :])
    yield from map(Text, more)
    for option in group.options:
        yield Text()
        for number, line in enumerate(wrapped(option.about, column) or [""]):
            yield Text.assemble((f"  {option.name if number == 0 else '':<{column - 2}}", "bold cyan"), line)
        for line in wrapped(explained(option), column):
            yield Text(" " * column + line, style="dim")
        yield from values(option, column + 2)
    yield Text("\n")


def values(option: Option, column: int) -> Iterator[Text]:
    """Yield the lines of an option's knobs, from a column on."""
    from rich.text import Text

    settings = [f"{knob.name} = {knob.default}" for knob in option.knobs]
    width = min(SETTING, max(map(len, settings), default=0))
    indent = column + width + 2
    for setting, knob in zip(settings, option.knobs, strict=True):
        lines = wrapped(explained_knob(knob), indent)
        beside = lines.pop(0) if lines and len(setting) <= width else ""
        *above, last = wrapped(setting, column, hanging=4) or [setting]
        yield from (Text(" " * column + line, style="cyan") for line in above)
        yield Text.assemble((f"{'':{column}}{last:<{width}}  ", "cyan"), beside)
        yield from (Text(" " * indent + line) for line in lines)


def wrapped(words: str, indent: int, hanging: int = 0) -> list[str]:
    """Return words in lines that end before column 100."""
    return textwrap.wrap(words, WIDTH - indent, subsequent_indent=" " * hanging, break_on_hyphens=False)


def invitation(group: Group) -> tuple[str, str, str]:
    """Return how a group's options are chosen, an example of choosing and setting, and the default."""
    option = next((o for o in group.options if o.knobs), group.options[0])
    key = f"{group.name}.{option.name}" if group.several else group.name
    knobs = "".join(f" {key}.{knob.name}={knob.default}" for knob in option.knobs[:1] if " " not in knob.default)
    if group.name == RECIPE:
        return "choose one, or none", f"{group.name}={option.name}", "none"
    if isinstance(group.default, list):
        return "any number, in order", f"'{group.name}=[{option.name}]'{knobs}", f"[{','.join(group.default)}]"
    return "choose one", f"{group.name}={option.name}{knobs}", str(group.default)


def explained(option: Option) -> str:
    """Return an option's meaning, without a source in parentheses that its first line has named already."""
    said = re.search(r" \(([^()]*)\)\.?$", option.meaning)
    return option.meaning[: said.start()] + "." if said and said[1] in option.about else option.meaning


def markdown(groups: list[Group]) -> str:
    """Return the groups as a page of Markdown."""
    lines = [
        "# Catalogue",
        "",
        f"Made by `{COMMAND}` from `conf/` and the components' docstrings; a test fails when it is stale.",
        "A knob is set by its dotted name: `optim.lr=0.1`, and `augment.crop.padding=4` where several may be chosen.",
        "A knob changes the experiment, unless it has another role: execution (how the same numbers are computed),",
        "observation (what is recorded) or path (where files are). Runs that differ in those alone are repeats.",
        "The fields outside groups (`epochs`, `seed`, `device`, ...) are in `python -m runner --help`.",
        "",
        *(f"- [{group.name}](#{group.name}): {', '.join(option.name for option in group.options)}" for group in groups),
    ]
    for group in groups:
        how, example, default = invitation(group)
        lines += ["", f"## {group.name}", "", f"{how.capitalize()}: `{example}`; default `{default}`."]
        for option in group.options:
            about, meaning = escaped(option.about), escaped(explained(option))
            lines += ["", f"### {group.name}={option.name}"]
            lines += [line for part in (about, meaning) if part for line in ("", part)]
            lines += ["", *map(item, option.knobs)] if option.knobs else []
    return "\n".join(lines) + "\n"


def item(knob: Knob) -> str:
    """Return a knob as an item of a list."""
    return f"- `{knob.name}: {knob.default}` {escaped(explained_knob(knob))}".rstrip()


def explained_knob(knob: Knob) -> str:
    """Return the comment of a knob, with its role unless that is the usual one."""
    return knob.comment if knob.role is Role.EXPERIMENT else f"{knob.comment} (role: {knob.role})".lstrip()


def escaped(words: str) -> str:
    """Return words with what Markdown would take for its own escaped, code in backticks left alone."""
    parts = words.split("`")
    return "`".join(re.sub(r"([*<\[\]])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
