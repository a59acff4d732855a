"""Words that are spelled alike."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """Return all `choices`, fewest edits away from `word` first."""
    return sorted(set(choices), key=lambda choice: (distance(word.lower(), choice.lower()), choice))


def close(word: str, other: str) -> bool:
    """Return True if `other` is near enough to `word` to be worth suggesting."""
    # Among words of four letters two edits lead anywhere: `test` is not `list`
    return distance(word.lower(), other.lower()) <= max(1, min(len(word), len(other)) // 3)


def distance(a: str, b: str) -> int:
    """Return the edits (insert, delete, replace, swap of neighbors) between two words of at most 64 letters."""
    a, b = a[:64], b[:64]
    table = [list(range(len(b) + 1))] + [[i] + [0] * len(b) for i in range(1, len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]
