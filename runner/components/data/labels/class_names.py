"""The class folders that are used, and the order of their labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from runner.components.data.labels.class_labels import natural_order
from runner.components.data.layout.folder_listing import folders_in
from runner.components.data.layout.layout_settings import ClassOrder
from runner.engine.saving.storage import printable
from runner.errors import MOST_CHOICES, ConfigError, DataError, escaped, wrong
from runner.out_of_scope import DETECTION
from runner.spelling import nearest

# Lower-case names of the folders of data sets for detection and segmentation: of images, and of boxes or masks
_IMAGES = frozenset({"images", "image", "imgs", "img", "jpegimages", "rgb"})
_ANNOTATIONS = frozenset(
    {
        *("labels", "annotations", "annotation", "annots", "masks", "mask", "segmentation", "gt", "ground_truth"),
        *("segmentationclass", "segmentationobject", "imagesets", "gtfine", "bboxes", "boxes", "labelmes"),
    }
)


def chosen_classes(
    names: Sequence[str], asked: Sequence[str | int] | None, order: ClassOrder, folder: Path
) -> list[str]:
    """Return the class folders that are used, in the order of their labels.

    Raises DataError for fewer than two and for names that are printed alike, ConfigError for an unknown class.
    """
    by_shown = {escaped(name): name for name in names}
    if len(by_shown) < len(names):
        alike = next(name for name in names if by_shown[escaped(name)] != name)
        raise DataError(f"data.root: {printable(folder)} has two class folders that are shown as '{escaped(alike)}'")
    if asked is None:
        lower = {name.lower() for name in names}
        if lower <= _IMAGES | _ANNOTATIONS and lower & _IMAGES and lower & _ANNOTATIONS:
            listed = ", ".join(by_shown)
            raise DataError(
                f"data.root: {printable(folder)} has the folders {listed}, which are no classes; {DETECTION}"
            )
        if len(names) < 2:
            raise DataError(f"data.root: {printable(folder)} has {_fewer_than_two(names, folder)}")
        return natural_order(names) if order == "natural" else list(names)
    wanted = [escaped(str(name)) for name in asked]
    for name in wanted:
        if name not in by_shown:
            raise _unknown_class(name, by_shown)
    if len(set(wanted)) < max(2, len(wanted)):
        raise wrong("data.classes", wanted, "at least two classes, each once")
    return [by_shown[name] for name in wanted]


def _unknown_class(name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an unknown class, with the nearest names."""
    ranked = nearest(name, known)
    more = f", ... {len(ranked) - MOST_CHOICES} more" if len(ranked) > MOST_CHOICES else ""
    return ConfigError(
        f"data.classes: unknown class '{escaped(name)}' (nearest: {', '.join(ranked[:MOST_CHOICES])}{more})"
    )


def _fewer_than_two(names: Sequence[str], folder: Path) -> str:
    """Return what is wrong with a folder of one class or none, and where the classes may be."""
    if not names:
        beside = any(name.lower() in _ANNOTATIONS for name in folders_in(folder.parent))
        return f"no class folders (want {printable(folder)}/<class>/<image>){f'; {DETECTION}' if beside else ''}"
    inner = folders_in(folder / names[0])
    problem = f"only one class, '{escaped(names[0])}'"
    if len(inner) < 2:
        return problem
    some = ", ".join(map(escaped, inner[:3]))
    hint = "if these are the classes or splits, name it in data.root or data.splits"
    return f"{problem}, with folders in it ({some}{', ...' if len(inner) > 3 else ''}); {hint}"
