"""Members of a tar file that belong together, by WebDataset's convention: an image and its label.

Members of an example stand one after the other and share their name up to the first dot of its last part: `a/007.jpg`
and `a/007.cls`. What follows says what they are. The label is in a member `cls` or `txt` as text, or in `json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runner.components.data.pixels.image_kinds import PACKED_SUFFIXES
from runner.components.data.shards.tar_headers import Member, TarReader, opened
from runner.errors import DataError, brief, escaped

LabelMember = Literal["auto", "cls", "json", "txt"]
# The order in which a label is looked for
_LABELS = ("cls", "json", "txt")
# Bytes of a member that holds a label
_MAX_TEXT, _MAX_JSON = 1024, 1 << 20


@dataclass
class Samples:
    """The examples of a tar file: name, place and size of each image, its label, and other members by their ends."""

    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def read_samples(path: Path, label: LabelMember, key: str) -> Samples:
    """Return the examples of a tar file.

    Args:
        path: The file.
        label: The member that holds the label; `auto` is not one.
        key: Where in a `json` member the label is.

    Raises:
        DataError: The file is damaged, or an example has no label, no image, or two of them; the line names the place.
    """
    with opened(path) as reader:
        samples, seen = Samples(), set()
        for name, members in _groups(reader, samples.others):
            if name in seen:
                at = next(iter(members.values())).offset
                raise reader.problem(f"two examples are called '{escaped(brief(name))}', the second stands", at)
            seen.add(name)
            _add(samples, reader, name, members, label, key)
        return samples


def first_label(path: Path) -> LabelMember:
    """Return which member holds the labels, by the first example of a tar file that has one."""
    with opened(path) as reader:
        for _, members in _groups(reader, Counter()):
            for found in ("cls", "json", "txt"):
                if found in members:
                    return found
    raise DataError(f"{reader.problem('has no member cls, json or txt; expected a label beside each image')}")


def _groups(reader: TarReader, others: Counter[str]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield the name of each example with its members: `image`, `cls`, `json` and `txt`. Count all other members."""
    current = ""
    members: dict[str, Member] = {}
    for member in reader.members():
        folder, slash, file = member.name.rpartition("/")
        stem, dot, end = file.partition(".")
        kind = end.lower().rpartition(".")[2]
        what = "image" if kind in PACKED_SUFFIXES else kind if kind in _LABELS else ""
        if not (stem and dot and what) or (stem.startswith("__") and stem.endswith("__")):
            others[f".{kind}" if stem and dot else "hidden" if dot else "no suffix"] += 1
            continue
        if (name := folder + slash + stem) != current:
            if members:
                yield current, members
            current, members = name, {}
        if what in members:
            pair = " and ".join(f"'{escaped(brief(each.name))}'" for each in (members[what], member))
            raise reader.problem(f"the example '{escaped(brief(name))}' has two members {what}: {pair}", member.offset)
        members[what] = member
    if members:
        yield current, members


def _add(
    samples: Samples, reader: TarReader, name: str, members: dict[str, Member], label: LabelMember, key: str
) -> None:
    """Add an example."""
    image, found = members.get("image"), members.get(label)
    if image is None or found is None:
        at = next(iter(members.values())).offset
        shown = escaped(brief(name))
        if image is None:
            raise reader.problem(f"the example '{shown}' has no image", at)
        raise reader.problem(f"the example '{shown}' has no member .{label}, which holds the label (data.label)", at)
    samples.labels.append(_label(reader, found, key if label == "json" else None))
    samples.names.append(image.name)
    samples.offsets.append(image.offset)
    samples.sizes.append(image.size)


def _label(reader: TarReader, member: Member, key: str | None) -> str:
    """Return the label in a member: its text, or a value of a JSON object."""
    where = f"the member '{escaped(brief(member.name))}'"
    most = _MAX_TEXT if key is None else _MAX_JSON
    if member.size > most:
        raise reader.problem(f"{where} has {member.size} bytes, expected at most {most} for a label", member.offset)
    data = reader.read(member.offset, member.size)
    try:
        text = data.decode()
        value = text.strip() if key is None else json.loads(text)[key]
    except KeyError as error:
        raise reader.problem(
            f"{where} has no key '{escaped(brief(key or ''))}' (data.label_key)", member.offset
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        kind = "text" if key is None else "a JSON object"
        raise reader.problem(f"{where} is not {kind} in UTF-8", member.offset) from error
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip() or "\n" in str(value):
        shown = escaped(brief(repr(value)))
        raise reader.problem(f"{where} has the label {shown}; expected one class, as text or number", member.offset)
    return str(value).strip()
