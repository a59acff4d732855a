"""Figures of `task=preview`: the learning rate over the steps, augmented images, and examples per class and split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.engine.figures.picture import figure, new_figure

_STYLES = ("-", "--", ":", "-.")
# Maximum number of letters of a class name in a caption, and beside a bar.
_MAX_LETTERS = 12
_MAX_LETTERS_OF_BAR = 30
# Classes that are drawn as bars with their names; more are a curve.
_MAX_BARS = 60


@dataclass(frozen=True)
class ImageRow:
    """A row of images.

    Attributes:
        name: The text on the left.
        images: The images (n, C, H, W) uint8.
        labels: What is written above each image: the name of its class, of a soft label the weights of its classes, or
            nothing for None.
    """

    name: str
    images: NDArray[np.uint8]
    labels: Sequence[int | Sequence[float] | None]


@figure("png")
def lr_figure(
    steps: Sequence[int], curves: Mapping[str, Sequence[float]], *, title: str, steps_per_epoch: int, log: bool
) -> Any:
    """Draw the learning rate of each parameter group over the steps; a log axis omits zeros.

    Args:
        steps: The steps to draw.
        curves: The learning rates at these steps, by the name of the parameter group.
        title: The title.
        steps_per_epoch: The steps of an epoch, for the second x axis.
        log: True gives a logarithmic y axis.
    """
    sheet = new_figure(9, 4, layout="constrained")
    axes: Any = sheet.subplots()
    marker = "." if len(steps) <= 60 else ""
    for number, (name, values) in enumerate(curves.items()):
        drawn = [value if value > 0 or not log else math.nan for value in values]
        style = _STYLES[number // 10 % len(_STYLES)]
        axes.plot(steps, drawn, label=name, color=f"C{number % 10}", linewidth=2, linestyle=style, marker=marker)
    axes.set(xlabel="step", ylabel="learning rate", yscale="log" if log else "linear")
    axes.set_title(title, fontsize=11)
    axes.margins(x=0.01)
    if not log:
        axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        sheet.legend(loc="outside upper right", frameon=False, fontsize=9, ncols=2)
    epochs = axes.secondary_xaxis(-0.2, functions=(lambda s: s / steps_per_epoch, lambda e: e * steps_per_epoch))
    epochs.set_xlabel("epoch")
    return sheet


@figure("png")
def image_figure(rows: Sequence[ImageRow], classes: Sequence[str]) -> Any:
    """Draw rows of images; each column shows the same example."""
    count, _, height, width = rows[0].images.shape
    tall = 1.1 * min(2.0, max(0.5, height / width))  # inches
    names = drawable_names(classes)
    captions = [row_captions(row, names) for row in rows]
    lines = [max(caption.count("\n") + 1 if caption else 0 for caption in line) for line in captions]
    heights = [tall + 0.05 + 0.17 * above for above in lines]
    sheet = new_figure(1.7 + 1.18 * count, 0.2 + sum(heights))
    left, top = 1.6 / sheet.get_figwidth(), 1 - 0.1 / sheet.get_figheight()
    for row, line, high, above in zip(rows, captions, heights, lines, strict=True):
        top -= high / sheet.get_figheight()
        for column in range(count):
            box = (left + column * 1.18 / sheet.get_figwidth(), top + 0.05 / sheet.get_figheight())
            size = (1.1 / sheet.get_figwidth(), tall / sheet.get_figheight())
            _draw_image(sheet.add_axes((*box, *size)), row.images[column], line[column])
        middle = top + (high - 0.17 * above) / 2 / sheet.get_figheight()
        sheet.text(left - 0.1 / sheet.get_figwidth(), middle, row.name, ha="right", va="center", fontsize=10)
    return sheet


def _draw_image(axes: Any, image: NDArray[np.uint8], caption: str) -> None:
    """Draw an image (C, H, W) uint8: three channels in color, else the first channel in gray."""
    picture = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()
    if caption:
        # A dollar sign in a name starts no formula
        axes.set_title(caption, fontsize=8.5, pad=2, linespacing=1.15, parse_math=False)


@figure("png")
def counts_figure(counts: Mapping[str, Sequence[int]], classes: Sequence[str], *, noun: str) -> Any:
    """Draw the examples per class and split: bars, or for many classes curves over the ranked classes."""
    bars = len(classes) <= _MAX_BARS
    sheet = new_figure(9, 1.1 + 0.22 * len(classes) if bars else 4, layout="constrained")
    axes: Any = sheet.subplots()
    sizes = {split: f"{split} {sum(found)}" for split, found in counts.items()}
    if bars:
        _draw_bars(axes, counts, classes, sizes)
        axes.set_xlabel(noun)
        axes.grid(alpha=0.3, axis="x")
    else:
        for split, found in counts.items():
            axes.plot(range(1, len(classes) + 1), sorted(found, reverse=True), label=sizes[split], linewidth=2)
        axes.set(xlabel=f"rank of the class, of {len(classes)}", ylabel=f"{noun} of the class", ylim=(0, None))
        axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    sheet.legend(loc="outside upper right", frameon=False, fontsize=9, ncols=len(counts))
    return sheet


def _draw_bars(
    axes: Any, counts: Mapping[str, Sequence[int]], classes: Sequence[str], labels: Mapping[str, str]
) -> None:
    """Draw a bar per class from top to bottom, with a part per split and the numbers at its end."""
    places = range(len(classes))
    ends = [0] * len(classes)
    for split, found in counts.items():
        axes.barh(places, found, left=ends, label=labels[split], height=0.8)
        ends = [end + count for end, count in zip(ends, found, strict=True)]
    for place, end in enumerate(ends):
        numbers = " + ".join(str(found[place]) for found in counts.values())
        axes.annotate(numbers, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [cut_class_name(name, _MAX_LETTERS_OF_BAR) for name in drawable_names(classes)], fontsize=8)
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.margins(x=0.12)
    axes.set_ylim(len(classes) - 0.4, -0.6)


def drawable_names(classes: Sequence[str]) -> list[str]:
    """Return the class names; one with a letter that the font lacks becomes the number of its class."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    return [
        name if all(ord(letter) in letters for letter in name) else f"class {label}"
        for label, name in enumerate(classes)
    ]


def row_captions(row: ImageRow, classes: Sequence[str]) -> list[str]:
    """Return the text above each image of a row."""
    return [_caption(label, classes) for label in row.labels]


def _caption(label: int | Sequence[float] | None, classes: Sequence[str]) -> str:
    """Return the text above an image."""
    if label is None:
        return ""
    return cut_class_name(classes[label]) if isinstance(label, int) else label_caption(label, classes)


def label_caption(weights: Sequence[float], classes: Sequence[str]) -> str:
    """Return the classes of a soft label with a weight of at least 1 %, largest first, one per line."""
    ranked = sorted(((weight, name) for weight, name in zip(weights, classes, strict=True)), reverse=True)
    return "\n".join(f"{cut_class_name(name)} {weight:.0%}" for weight, name in ranked if weight >= 0.01)


def cut_class_name(name: str, most: int = _MAX_LETTERS) -> str:
    """Return a name, truncated to `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1]}…"
