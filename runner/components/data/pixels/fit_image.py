"""Scale an image to a size of another aspect ratio: by a crop, by borders, or by a change of its proportions."""

from __future__ import annotations

from typing import Any, Literal

Fit = Literal["crop", "pad", "squish"]


def fit_image(image: Any, size: tuple[int, int], center: float, fit: Fit) -> Any:
    """Return a Pillow image in the size (H, W), scaled bilinearly with antialiasing.

    Args:
        image: An L or RGB image.
        size: (H, W) of the result.
        center: Central share of both sides that is kept.
        fit: `crop` covers the size and cuts off what is outside; `pad` shows the whole image between black borders;
            `squish` scales both sides apart.
    """
    from PIL import Image, ImageOps

    height, width = size
    if image.size == (width, height) and center == 1:
        return image
    # Share cut from each side
    bleed = (1 - center) / 2
    if fit == "crop":
        return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR, bleed)
    left, top = image.width * bleed, image.height * bleed
    box = (left, top, image.width - left, image.height - top)
    if fit == "squish":
        return image.resize((width, height), Image.Resampling.BILINEAR, box)
    scale = min(width / (box[2] - box[0]), height / (box[3] - box[1]))
    # A line of one pixel is left of the thinnest image
    inner = tuple(max(1, round((box[i + 2] - box[i]) * scale)) for i in (0, 1))
    padded = Image.new(image.mode, (width, height))
    corner = (round((width - inner[0]) / 2), round((height - inner[1]) / 2))
    padded.paste(image.resize(inner, Image.Resampling.BILINEAR, box), corner)
    return padded
