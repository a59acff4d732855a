"""Words one edit away from a valid word, and the suggestions of an error line."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator

LETTERS = string.ascii_lowercase + string.digits + "_"
HINT = re.compile(r"; did you mean '([^']*)'\?")
WORDS = re.compile(r"'([^']*)'")  # as in: must be 'zeros', 'prior' or a number > 0
CHOICES = re.compile(r"\(choose from: ([^()]*)\)")
COUNT = 3  # names that a reader looks at


def typos(word: str, rng: random.Random, each: int) -> Iterator[str]:
    """Yield up to `each` words of every kind of edit: a letter left out, put in, replaced, or swapped with the next."""
    for edit in (left_out, put_in, replaced, swapped):
        found = {typo for _ in range(each) if (typo := edit(word, rng)) not in ("", word)}
        yield from sorted(found)


def left_out(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return word[:place] + word[place + 1 :]


def put_in(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word) + 1)
    return word[:place] + rng.choice(LETTERS) + word[place:]


def replaced(word: str, rng: random.Random) -> str:
    place = rng.randrange(len(word))
    return word[:place] + rng.choice(LETTERS) + word[place + 1 :]


def swapped(word: str, rng: random.Random) -> str:
    if len(word) == 1:
        return word
    place = rng.randrange(len(word) - 1)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def suggestions_in(line: str) -> list[str]:
    """Return the names that an error line suggests, in their order."""
    hint, choices = HINT.search(line), CHOICES.search(line)
    listed = choices[1].split(", ") if choices else WORDS.findall(line.partition(", must be ")[2])
    return list(dict.fromkeys([*([hint[1]] if hint else []), *listed]))


def is_suggested(line: str, word: str) -> bool:
    """Return True if an error line suggests a word among its first names."""
    return word in suggestions_in(line)[:COUNT]
