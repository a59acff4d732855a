"""Text that is folded to a width of the screen, in cells: a letter of Chinese takes two, an accent none."""

from __future__ import annotations

import re

# What stays in one line as long as there is room: a word, a value up to its comma, or one in a name (`lr=0.1-seed=0`)
CHUNK = re.compile(r"\s+|[^\s,]*?(?:,|-(?=[A-Za-z_.]+=))|[^\s,]+")
# Where a longer chunk is folded: a number with sign and unit is one piece, and punctuation belongs to what is before it
_NUMBER = r"[+\-±]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?%?[^\W_]*"
PIECE = re.compile(rf"(?:{_NUMBER}|[^\W_]+)(?:[^\w\s+\-±(\[{{]|_)*|\s+|.")


def fold(text: str, width: int) -> list[str]:
    """Return text as lines of a width in cells; a number is whole, and only a longer word is cut within."""
    lines, line = list[str](), ""
    for chunk in CHUNK.findall(text):
        for part in [chunk] if cells_of(chunk) <= width else PIECE.findall(chunk):
            if cells_of(line + part) <= width:
                line += part
                continue
            lines += [line.rstrip()] if line.strip() else []
            line = "" if part.isspace() else part
            while cells_of(line) > width:
                end = _fitting(line, width)
                lines.append(line[:end])
                line = line[end:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def cells_of(text: str) -> int:
    """Return the width of a text in cells of the screen, without spaces at its end."""
    from rich.cells import cell_len

    return cell_len(text.rstrip())


def _fitting(text: str, width: int) -> int:
    """Return how many characters fit, at least one; an accent stays with its letter."""
    end = 1
    while end < len(text) and (cells_of(text[: end + 1]) <= width or not cells_of(text[end])):
        end += 1
    return end
