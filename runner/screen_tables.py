"""Tables for the screen: they fit its width, and no number is cut or split over two lines.

Columns that name a row come first and stay. Text is folded to make room, at spaces and punctuation as long as there is
any. Then optional columns are left out and named below the table. What still does not fit continues in a second block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from runner.fold_text import CHUNK, PIECE, cells_of, fold
from runner.printing import visible
from runner.streams import encodable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_Rows = Sequence[Mapping[str, str]]
# Rich's columns have a space on both sides
_SPACE = 2
# Text is folded at spaces and commas to no less than its words, nor the second width, nor more than the first; words
# are cut at the third
_COMFORTABLE, _SENTENCE, _NARROW = 20, 12, 6
# Optional columns make room for half of a long text that alone names a row, at most this width
_NAME = 40
_BEGINS_NUMBER = re.compile(r"[+\-±]?\d")
# Digits that are no number, such as a name of digits
_LONGEST = 30
_NUMBERS = re.compile(r"[\d.,+\-±%/<>eE: \u2212]*")
# Folded so far: not; at spaces and commas; at any punctuation, text and then headings of numbers; in words; numbers at
# spaces
_NATURAL, _SPACES, _PIECES, _HEADINGS, _WORDS, _LAST = range(6)


@dataclass(frozen=True)
class _Column:
    """A column: its cells, whether all are numbers, and its width at each level of folding."""

    heading: str
    cells: tuple[str, ...]
    numeric: bool
    widths: tuple[int, ...]


def print_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    keys: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    headings: Mapping[str, str] | None = None,
    split: bool = True,
    title: str = "",
    notes: Iterable[str] = (),
    stream: TextIO | None = None,
    console: Console | None = None,
) -> None:
    """Print rows with the same keys as a table; floats get four decimals, and numbers are aligned right.

    Args:
        rows: The rows; nothing is printed without any.
        keys: The columns that name a row, by default the first one; they stand in every block.
        optional: Columns that may be left out, the first to go first.
        headings: What stands above a column, if not its name; a name may begin with a space to differ from a key.
        split: Continue in a second block; if False, columns that do not fit are left out, from the last on.
        title: A line above the table.
        notes: Lines below the table.
        stream: Where to print, by default standard output.
        console: The console to print on, instead of a new one for the stream.
    """
    from runner.rich_console import make_console

    screen = console or make_console(stream)
    if rows:
        table = make_table(
            rows, screen, keys=keys, optional=optional, headings=headings, split=split, title=title, notes=notes
        )
        screen.print(table, crop=False)


def make_table(
    rows: Sequence[Mapping[str, Any]],
    screen: Console,
    *,
    keys: Sequence[str] | None = None,
    optional: Sequence[str] = (),
    headings: Mapping[str, str] | None = None,
    split: bool = True,
    title: str = "",
    notes: Iterable[str] = (),
) -> RenderableType:
    """Return what `print_table` prints, for a console."""
    from rich.console import Group
    from rich.text import Text

    def lines(text: str, style: str = "") -> Text:
        return Text("\n".join(fold(_shown(text, screen), screen.width)), style=style, no_wrap=True)

    if not rows:
        return lines(title, "bold")
    columns = _columns(rows, screen, headings or {})
    first = list(columns)[:1] if keys is None else [key for key in keys if key in columns]
    shown, left_out = _choose(columns, first, optional, screen.width, split=split)
    blocks = _pack(columns, [key for key in first if key in shown], shown, screen.width, split=split)
    below = [*([f"not shown: {', '.join(map(str.strip, left_out))}"] if left_out else []), *notes]
    return Group(
        *([lines(title, "bold")] if title else []),
        *(_draw([columns[name] for name in block], screen.width) for block in blocks),
        *(lines(note) for note in below),
    )


def natural_width(rows: Sequence[Mapping[str, Any]], screen: Console, headings: Mapping[str, str]) -> int:
    """Return the width of a table in which nothing is folded."""
    columns = _columns(rows, screen, headings)
    return _total(columns, columns, _NATURAL)


def fits(rows: Sequence[Mapping[str, Any]], screen: Console, headings: Mapping[str, str]) -> bool:
    """Return True if all columns fit beside each other, with text and headings folded at punctuation."""
    columns = _columns(rows, screen, headings)
    return _total(columns, columns, _HEADINGS) <= screen.width


def rows_note(shown: int, count: int, noun: str, which: str) -> list[str]:
    """Return a line on the rows that a table leaves out, none if it has all: `20 of 24 points, the best first`."""
    return [f"{shown} of {count} {noun}, {which}"] if shown < count else []


def _text(value: Any) -> str:
    """Return a value as a cell."""
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _shown(text: str, screen: Console) -> str:
    """Return a text in one line, as the screen can show it."""
    return encodable(visible(" ".join(text.split())), screen.encoding)


def _columns(rows: Sequence[Mapping[str, Any]], screen: Console, headings: Mapping[str, str]) -> dict[str, _Column]:
    """Return the columns of rows with the same keys, by name."""
    return {
        name: _column(_shown(headings.get(name, name), screen), [_shown(_text(row[name]), screen) for row in rows])
        for name in rows[0]
    }


def _column(heading: str, cells: list[str]) -> _Column:
    """Return a column with its width at each level of folding."""
    numeric = any(cells) and all(map(_NUMBERS.fullmatch, cells))
    whole, words = _longest([cells]), _longest(map(str.split, cells))
    head, pieces = _longest([heading.split()]), _longest([PIECE.findall(heading)])
    natural = max(whole, cells_of(heading))
    if numeric:
        least = [max(whole, head), max(whole, head), max(whole, pieces), max(whole, pieces), max(words, pieces)]
    else:
        numbers = min(_LONGEST, _longest(filter(_BEGINS_NUMBER.match, PIECE.findall(cell)) for cell in cells))
        chunks = _longest(map(CHUNK.findall, (heading, *cells)))
        spaces = max(min(_COMFORTABLE, max(chunks, _SENTENCE)), numbers)
        folded = max(min(_COMFORTABLE, max(_longest(map(PIECE.findall, cells)), pieces)), numbers)
        narrow = max(min(_NARROW, folded), numbers)
        least = [spaces, folded, folded, narrow, narrow]
    return _Column(heading, tuple(cells), numeric, (natural, *(min(natural, width) for width in least)))


def _longest(lists: Iterable[Iterable[str]]) -> int:
    """Return the width of the widest text in some lists, in cells."""
    return max((cells_of(text) for texts in lists for text in texts), default=0)


def _total(columns: Mapping[str, _Column], names: Iterable[str], level: int) -> int:
    """Return the width of a table of some columns, folded to a level."""
    return sum(columns[name].widths[level] + _SPACE for name in names)


def _choose(
    columns: Mapping[str, _Column], keys: Sequence[str], optional: Sequence[str], width: int, *, split: bool
) -> tuple[list[str], list[str]]:
    """Return the columns to show and those to leave out."""
    shown, left_out = list(columns), list[str]()

    def leave_out(name: str) -> None:
        shown.remove(name)
        left_out.append(name)

    level = _SPACES if split else _PIECES
    widths = columns[keys[0]].widths if len(keys) == 1 else (0,) * (_LAST + 1)
    half = min(_NAME, widths[_NATURAL] // 2)
    room = width - (half - widths[level] if half > _COMFORTABLE else 0)
    for name in optional:
        if name in shown and name not in keys and _total(columns, shown, level) > room:
            leave_out(name)
    if split:
        return shown, left_out
    for name in [*reversed(keys[1:]), *reversed([name for name in columns if name not in keys])]:
        if name in shown and len(shown) > 1 and _total(columns, shown, _WORDS) > width:
            leave_out(name)
    return shown, sorted(left_out, key=list(columns).index)


def _pack(
    columns: Mapping[str, _Column], keys: list[str], shown: Sequence[str], width: int, *, split: bool
) -> list[list[str]]:
    """Return the columns of each block; every block begins with the columns that name a row."""
    if _total(columns, shown, _SPACES) <= width or not split:
        return [list(shown)]
    blocks: list[list[str]] = []
    for name in shown:
        if name in keys:
            continue
        if not blocks or _total(columns, [*blocks[-1], name], _SPACES) > width:
            blocks.append([*keys])
        blocks[-1].append(name)
    return blocks or [keys]


def _draw(columns: Sequence[_Column], width: int) -> RenderableType:
    """Return a block as a table of rich, its cells folded to the widths that fit."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def cell(text: str, room: int) -> Text:
        return Text("\n".join(fold(text, room)), no_wrap=True)

    widths = _fit(columns, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for each, room in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if each.numeric else "left"
        table.add_column(cell(each.heading, room), justify=justify, no_wrap=True, min_width=room, max_width=room)
    for row in zip(*(each.cells for each in columns), strict=True):
        table.add_row(*map(cell, row, widths))
    return table


def _fit(columns: Sequence[_Column], width: int) -> list[int]:
    """Return widths that fit, or the smallest ones: the widest column is folded first."""
    widths = [each.widths[0] for each in columns]
    for level in range(_SPACES, _LAST + 1):
        while sum(widths) + _SPACE * len(widths) > width:
            wide = [at for at, each in enumerate(columns) if widths[at] > each.widths[level]]
            if not wide:
                break
            widths[max(wide, key=lambda at: widths[at])] -= 1
    return widths
