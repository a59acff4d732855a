"""Messages about copies of an example, in several splits or with several labels, and the choice of `drop`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from runner.errors import DataError

Duplicates = Literal["ignore", "warn", "drop", "error"]

# Pairs of examples that one line names at most
_MOST_PAIRS = 3
# The split of which examples are counted, and that with their copies
_PAIRS = (("test", "train"), ("test", "val"), ("val", "train"))
# The splits that keep an example which the split has, too: the test split keeps all, training gives up the most
_KEPT_BY = {"train": ("val", "test"), "val": ("test",)}


class Copy(NamedTuple):
    """An example that others equal: its position, and a number that files with the same bytes share."""

    place: int
    content: int | None


@dataclass(frozen=True)
class Examples:
    """All examples, split after split: split and label of each, `name` of a position, and what they are called."""

    splits: Sequence[str]
    labels: Sequence[int]
    name: Callable[[int], str]
    noun: str


_Groups = Sequence[Sequence[Copy]]


def check_copies(examples: Examples, groups: _Groups, classes: Sequence[str], mode: Duplicates) -> tuple[str, ...]:
    """Return lines about groups of equal examples; DataError if some are in several splits and `mode` is `error`."""
    lines = _lines_across(examples, groups)
    if lines and mode == "error":
        raise DataError(f"data.duplicates: {'; '.join(lines)}; remove them, or choose drop or warn")
    advice = "; data.duplicates=drop leaves them out of training" if mode == "warn" else ""
    return (*(f"data: {line}{advice}" for line in lines), *_line_about_labels(examples, groups, classes))


def kept_places(examples: Examples, groups: _Groups, split: str) -> list[int]:
    """Return the positions in `split`, train or val, of its examples without a copy in a split that keeps it."""
    out = {
        copy.place
        for group in groups
        if any(examples.splits[copy.place] in _KEPT_BY[split] for copy in group)
        for copy in group
        if examples.splits[copy.place] == split
    }
    places = (place for place, name in enumerate(examples.splits) if name == split)
    return [number for number, place in enumerate(places) if place not in out]


def left_out_line(left_out: dict[str, int], noun: str) -> str:
    """Return the line about copies that `drop` left out of training and validation."""
    return (
        f"data: left out {left_out.get('train', 0)} training and {left_out.get('val', 0)} validation {noun} "
        "(data.duplicates=drop)"
    )


def _lines_across(examples: Examples, groups: _Groups) -> list[str]:
    """Return a line for each two splits that share examples."""
    lines = []
    for one, other in _PAIRS:
        pairs: list[tuple[int, int, bool]] = []
        for group in groups:
            there = [copy for copy in group if examples.splits[copy.place] == other]
            for copy in group if there else ():
                if examples.splits[copy.place] == one:
                    same = [each for each in there if each.content == copy.content]
                    pairs.append((copy.place, (same or there)[0].place, bool(same)))
        if pairs:
            lines.append(_line(examples, sorted(pairs), one, other, kinds=groups[0][0].content is not None))
    return lines


def _line(examples: Examples, pairs: Sequence[tuple[int, int, bool]], one: str, other: str, *, kinds: bool) -> str:
    """Return what two splits share, with the first names; with `kinds` also whether bytes or only pixels are equal."""
    same = sum(equal for *_, equal in pairs)
    counts = {"bytes": same, "pixels": len(pairs) - same} if kinds else {}
    said = " and ".join(f"{count} with the same {what}" for what, count in counts.items() if count)
    named = [f"{examples.name(a)} = {examples.name(b)}" for a, b, _ in pairs[:_MOST_PAIRS]]
    more = ["..."] if len(pairs) > _MOST_PAIRS else []
    verb = "is" if len(pairs) == 1 else "are"
    return (
        f"{len(pairs)} of {examples.splits.count(one)} {one} {examples.noun} {verb} in {other} too"
        f"{', ' * bool(said)}{said} ({', '.join(named + more)})"
    )


def _line_about_labels(examples: Examples, groups: _Groups, classes: Sequence[str]) -> tuple[str, ...]:
    """Return a line about copies with different labels, in one split or in several; none without such copies."""
    places = ([copy.place for copy in group] for group in groups)
    different = [group for group in places if len({examples.labels[place] for place in group}) > 1]
    if not different:
        return ()
    named = []
    for group in different[:_MOST_PAIRS]:
        a = group[0]
        b = next(place for place in group if examples.labels[place] != examples.labels[a])
        named.append(" = ".join(f"{examples.name(place)} '{classes[examples.labels[place]]}'" for place in (a, b)))
    more = ["..."] if len(different) > _MOST_PAIRS else []
    count = sum(map(len, different))
    return (f"data: {count} {examples.noun} have copies with another label ({', '.join(named + more)})",)
