"""task=list: every group, option and knob, as text or as the Markdown of docs/reference.md."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

# Registers the components
import runner.components  # noqa: F401
from runner.errors import unknown
from runner.printing import check_printed, write_stdout
from runner.registry import register
from runner.roles import Role
from runner.tasks import load_tasks
from runner.tasks.catalog import SETTINGS_PART, Group, Knob, read_catalog, read_settings
from runner.tasks.job import Job
from runner.tasks.reference import reference_page, usage

if TYPE_CHECKING:
    from rich.text import Text

# Fewest and most columns of the page; longer lines are hard to read
_MIN_WIDTH, _MAX_WIDTH = 60, 100
# Columns before a knob
_KNOB_INDENT = 6
# Columns of a knob and its default, at most
_KNOB_WIDTH = 26


@register("task", name="list")
def list_task(
    job: Job,
    *,
    kind: Annotated[str | None, Role.OBSERVATION],
    format: Annotated[Literal["text", "markdown"], Role.OBSERVATION],  # noqa: A002
) -> int:
    """Print all options and knobs, including the user's own.

    Args:
        job: The checked job.
        kind: Group to print, `settings` for the global fields, or None for all; Markdown of all includes the engine's
            contracts.
        format: `text` or `markdown`.

    Raises:
        ConfigError: For an unknown kind.
    """
    load_tasks()
    groups = read_catalog(job.folders, plugins=bool(job.config["plugins"]))
    settings = read_settings(job.folders[0]) if kind in (None, SETTINGS_PART) else ()
    if kind == SETTINGS_PART:
        groups = []
    elif kind is not None:
        groups = [group for group in groups if group.name == kind] or _raise_unknown_kind(kind, groups)
    if format == "markdown":
        write_stdout(reference_page(groups, settings, with_contracts=kind is None))
    else:
        _print_page(groups, settings)
    check_printed()
    return 0


def _raise_unknown_kind(kind: str, groups: list[Group]) -> list[Group]:
    """Raise ConfigError for an unknown kind."""
    raise unknown("task.kind", "kind", kind, [*(group.name for group in groups), SETTINGS_PART])


def _print_page(groups: list[Group], settings: Sequence[Knob]) -> None:
    """Print groups and settings as text, as wide as the terminal (60 to 100 columns), and colored if there is one."""
    from runner.rich_console import make_console

    screen = make_console(pipe_width=None)
    width = min(_MAX_WIDTH, max(_MIN_WIDTH, screen.width)) if screen.is_terminal else _MAX_WIDTH
    with screen:
        for group in groups:
            for line in _group_lines(group, width):
                line.rstrip()
                screen.print(line, soft_wrap=True)
        for line in _settings_lines(settings, width) if settings else ():
            line.rstrip()
            screen.print(line, soft_wrap=True)


def _group_lines(group: Group, width: int) -> Iterator[Text]:
    """Yield the lines of a group."""
    from rich.text import Text

    column = max(len(option.name) for option in group.options) + 4
    how, example, default = usage(group)
    title, *more = _wrap(f"{group.name}  {how}: {example}; default {default}", width, 0, hanging=4)
    yield Text.assemble((group.name, "bold"), title[len(group.name) :])
    yield from map(Text, more)
    for option in group.options:
        yield Text()
        for number, line in enumerate(_wrap(option.about, width, column) or [""]):
            yield Text.assemble((f"  {option.name if number == 0 else '':<{column - 2}}", "bold cyan"), line)
        for paragraph in option.details:
            yield from (Text(" " * column + line, style="dim") for line in _wrap(paragraph, width, column))
        yield from _knob_lines(option.knobs, width)
    yield Text("\n")


def _settings_lines(settings: Sequence[Knob], width: int) -> Iterator[Text]:
    """Yield the lines of the global fields: name and default, then the comment and the type."""
    from rich.text import Text

    yield Text.assemble((SETTINGS_PART, "bold"), "  of every run: epochs=30")
    yield Text()
    yield from _knob_lines([replace(knob, comment=f"{knob.comment} ({knob.type})") for knob in settings], width)
    yield Text("\n")


def _knob_lines(knobs: Sequence[Knob], width: int) -> Iterator[Text]:
    """Yield the lines of knobs: name and default, then the comment."""
    from rich.text import Text

    settings = [f"{knob.name} = {knob.default}" for knob in knobs]
    size = min(_KNOB_WIDTH, max(map(len, settings), default=0))
    indent = _KNOB_INDENT + size + 2
    for setting, knob in zip(settings, knobs, strict=True):
        lines = _wrap(knob.note, width, indent)
        beside = lines.pop(0) if lines and len(setting) <= size else ""
        *above, last = _wrap(setting, width, _KNOB_INDENT, hanging=4) or [setting]
        yield from (Text(" " * _KNOB_INDENT + line, style="cyan") for line in above)
        yield Text.assemble((f"{'':{_KNOB_INDENT}}{last:<{size}}  ", "cyan"), beside)
        yield from (Text(" " * indent + line) for line in lines)


def _wrap(words: str, width: int, indent: int, hanging: int = 0) -> list[str]:
    """Return text wrapped to lines that fit into `width` columns after an indent."""
    return textwrap.wrap(words, width - indent, subsequent_indent=" " * hanging, break_on_hyphens=False)
