"""The fingerprint of a data set: which examples a run reads, wherever their files lie. Imports no torch.

A data set says what identifies it by `@identified_by(function)`: the function gets the knobs and returns a `Part` per
split, from names, sizes and bytes of the files or from a generator's knobs. It decodes nothing. A data set without one
is identified by the labels and pixels of its splits (`runner.engine.data_digest`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from runner.errors import brief

_Factory = TypeVar("_Factory", bound=Callable[..., Any])
_HEX = re.compile(r"[0-9a-f]{32}")
# Classes that one line names at most
_MOST_NAMES = 6
# Characters of all changes in one line at most
_MOST_WORDS = 400


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split: a digest of its names and sizes, one of its contents, and the number of examples of each class."""

    listing: str
    content: str
    counts: tuple[int, ...] | None = None  # None: not known without opening the split

    @property
    def count(self) -> int | None:
        """The number of examples, None if it is not known."""
        return None if self.counts is None else sum(self.counts)


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The identity of a data set: its splits (`train`, `val`, `test` where known), and its classes in order."""

    parts: Mapping[str, Part]
    classes: tuple[str, ...] | None = None

    @property
    def id(self) -> str:
        """Sixteen hex digits that are equal for equal data."""
        return digest(f"{name} {part.listing} {part.content}" for name, part in sorted(self.parts.items()))[:16]

    def described(self, classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Fingerprint:
        """Return the fingerprint with the names of the classes, and the counts of splits that have none yet."""
        parts = {
            name: replace(part, counts=tuple(counts[name])) if part.counts is None and name in counts else part
            for name, part in self.parts.items()
        }
        return Fingerprint(parts=parts, classes=tuple(classes))

    def in_order_of(self, classes: Sequence[str]) -> Fingerprint:
        """Return the fingerprint of the same data with the classes, and their counts, in another order."""
        own = self.classes or ()
        parts = {}
        for name, part in self.parts.items():
            found = dict(zip(own, part.counts or (), strict=False))
            parts[name] = part if part.counts is None else replace(part, counts=tuple(found.get(c, 0) for c in classes))
        return Fingerprint(parts=parts, classes=tuple(classes))

    def to_record(self) -> dict[str, Any]:
        """Return the fingerprint as JSON values."""
        parts = {
            name: {"count": part.count, "counts": part.counts and list(part.counts), **_digests(part)}
            for name, part in self.parts.items()
        }
        return {"fingerprint": self.id, "classes": self.classes and list(self.classes), "splits": parts}


def _digests(part: Part) -> dict[str, str]:
    """Return the two digests of a split by their names."""
    return {"listing": part.listing, "content": part.content}


def from_record(record: Any) -> Fingerprint | None:
    """Return the fingerprint that `to_record` wrote, None if there is none or it is malformed."""
    try:
        parts = {str(name): _part_of(each) for name, each in record["splits"].items()}
        classes = record["classes"]
        named = None if classes is None else tuple(map(str, classes))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Fingerprint(parts=parts, classes=named) if parts else None


def _part_of(record: Mapping[str, Any]) -> Part:
    """Return one split of a record; raises ValueError if its digests are malformed."""
    if not (_HEX.fullmatch(record["listing"]) and _HEX.fullmatch(record["content"])):
        raise ValueError("a digest is malformed")
    counts = record["counts"]
    return Part(
        listing=record["listing"],
        content=record["content"],
        counts=None if counts is None else tuple(int(count) for count in counts),
    )


def identified_by(identity: Callable[..., Mapping[str, Part]]) -> Callable[[_Factory], _Factory]:
    """Mark a data set with the function that identifies what it reads: from some of its knobs to a `Part` per split.

    The function takes the knobs that it asks for by name, and objects of shared knobs, as the data set does.

    Two calls must return equal digests exactly if the data set would read equal examples. Where files lie, when they
    were written, and knobs about training and execution must not matter.
    """

    def mark(factory: _Factory) -> _Factory:
        factory.identity = identity  # type: ignore[attr-defined]
        return factory

    return mark


def identity_of(factory: Callable[..., Any]) -> Callable[..., Mapping[str, Part]] | None:
    """Return the function that identifies what a data set reads, None if it has none."""
    return getattr(factory, "identity", None)


def digest(parts: Iterable[str | bytes]) -> str:
    """Return 32 hex digits of a sequence of texts; no two sequences are the same bytes."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        found.update(b"%d:" % len(data))
        found.update(data)
    return found.hexdigest()[:32]


def differences(before: Fingerprint, now: Fingerprint) -> str:
    """Return in words what changed from one fingerprint to another: classes, counts, names, contents; empty if nothing.

    A change that follows from one named before it is left out.
    """
    if before.id == now.id:
        return ""
    classes = _class_changes(before.classes, now.classes)
    splits = []
    for name in dict.fromkeys([*before.parts, *now.parts]):
        old, new = before.parts.get(name), now.parts.get(name)
        if old is None or new is None:
            splits.append(f"there is {'a new' if old is None else 'no longer a'} {name} split")
        elif said := _part_changes(name, old, new, None if classes else now.classes):
            splits.append(said)
    return brief("; ".join([*classes, *splits]), _MOST_WORDS)


def _class_changes(before: Sequence[str] | None, now: Sequence[str] | None) -> list[str]:
    """Return in words how the classes changed."""
    if before is None or now is None or tuple(before) == tuple(now):
        return []
    gone, new = named(set(before) - set(now)), named(set(now) - set(before))
    words = [*([f"without {gone}"] if gone else []), *([f"with {new}"] if new else [])]
    return [f"classes: {' and '.join(words) or 'in another order'}"]


def _part_changes(name: str, old: Part, new: Part, classes: Sequence[str] | None) -> str:
    """Return in words how a split changed; `classes` names those of the counts, where they are the same."""
    if old.counts is not None and new.counts is not None and (old.count != new.count or old.counts != new.counts):
        what = f"{name}: {new.count} examples instead of {old.count}"
        if classes is None:
            return what if old.count != new.count else ""
        pairs = zip(classes, old.counts, new.counts, strict=False)
        changed = [f"'{label}' {after} instead of {before}" for label, before, after in pairs if before != after]
        more = f", and {len(changed) - _MOST_NAMES} more classes" if len(changed) > _MOST_NAMES else ""
        return f"{what} ({', '.join(changed[:_MOST_NAMES])}{more})"
    if classes is None and old.counts is not None:
        return ""
    if old.listing != new.listing:
        return f"{name}: other names or sizes"
    return "" if old.content == new.content else f"{name}: other contents under the same names and sizes"


def named(labels: Iterable[str]) -> str:
    """Return class names for a message, at most a few."""
    ordered = sorted(labels)
    more = f", and {len(ordered) - _MOST_NAMES} more" if len(ordered) > _MOST_NAMES else ""
    return ", ".join(f"'{label}'" for label in ordered[:_MOST_NAMES]) + more


def counts_of(labels: Iterable[int], classes: int) -> tuple[int, ...]:
    """Return the number of examples of each class."""
    found = Counter(labels)
    return tuple(found.get(label, 0) for label in range(classes))
