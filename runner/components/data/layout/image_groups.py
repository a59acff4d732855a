"""Groups of images, such as the patients or tracks that they show: the images of one group stay in one split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.components.data.layout.folder_listing import relative_paths
from runner.components.data.layout.listing import GroupOf, Listing
from runner.engine.saving.storage import printable
from runner.errors import DataError, escaped

# Groups that one line names at most
_MOST_NAMES = 3


def found_in_name(pattern: re.Pattern[str], name: str, wanted: str) -> str | None:
    """Return what a pattern finds: the group `wanted`, else the first group, else all of it; None for no match."""
    match = pattern.search(name)
    if match is None:
        return None
    if wanted in pattern.groupindex:
        return match[wanted] or None
    return (match[1] if pattern.groups else match[0]) or None


def groups_by_name(expression: str, base: Path, hint: str = "") -> GroupOf:
    """Return the function that reads groups from file names, or from paths below `base` if the pattern has a `/`.

    `hint` ends the message about names without a group.
    """
    pattern = re.compile(expression)

    def group_of(files: Sequence[str]) -> list[str]:
        names = relative_paths(base, files)
        if "/" not in expression:
            names = [name.rpartition("/")[2] for name in names]
        found = [found_in_name(pattern, name, "group") for name in names]
        if missing := [file for file, group in zip(files, found, strict=True) if group is None]:
            first = printable(Path(missing[0]))
            raise DataError(
                f"data.groups: got '{escaped(expression)}', finds no group in the name of {first} "
                f"({len(missing)} of {len(files)} images){hint}"
            )
        return [group for group in found if group is not None]

    return group_of


def torn_groups(splits: Mapping[str, Listing], group_of: GroupOf | None) -> tuple[str, ...]:
    """Return a line about groups with images in more than one split, none without such groups."""
    if group_of is None:
        return ()
    places: dict[str, list[str]] = {}
    for split, listing in splits.items():
        for group in dict.fromkeys(group_of(listing.files)):
            places.setdefault(group, []).append(split)
    torn = [f"'{escaped(group)}' ({', '.join(found)})" for group, found in places.items() if len(found) > 1]
    if not torn:
        return ()
    more = f", and {len(torn) - _MOST_NAMES} more" if len(torn) > _MOST_NAMES else ""
    return (
        f"data: {len(torn)} of {len(places)} groups have images in more than one split, so scores may be too high: "
        f"{', '.join(torn[:_MOST_NAMES])}{more}",
    )
