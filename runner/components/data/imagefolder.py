"""Any folder of images, with one folder per class."""

from __future__ import annotations

from typing import Annotated

from runner.components.data.image_settings import ImageSettings
from runner.components.data.layout.folder_identity import layout_parts
from runner.components.data.layout.folder_layout import read_layout
from runner.components.data.layout.layout_settings import LayoutSettings
from runner.components.data.pixels.pixel_settings import PixelSettings
from runner.engine.contracts import Data
from runner.engine.fingerprint import Part, identified_by
from runner.registry import register
from runner.roles import Aspect, FilePath, Role
from runner.user_folders import expand_home


def _identity(layout: LayoutSettings, *, root: str) -> dict[str, Part]:
    """Return what identifies the images under a folder: classes, relative names, sizes and contents of each split."""
    folder = expand_home(root)
    return layout_parts(read_layout(folder, layout), folder)


@register("data")
@identified_by(_identity)
def imagefolder(
    layout: LayoutSettings,
    pixels: PixelSettings,
    images: ImageSettings,
    *,
    root: Annotated[str, Role.PATH, FilePath(expand=False), Aspect.EXAMPLES],
) -> Data:
    """Load the images under `root` in RGB or gray, scaled to `size`, decoded once into a cache.

    Layouts: `root/<split>/<class>/*`, the splits by the usual words in any case or by `splits`, or `root/<class>/*`; or
    labels from a CSV file or file names. Missing splits (except a test split beside one for training) are fixed,
    stratified parts by a hash of each file's path, or whole `groups`, whatever the seed. A set larger than `memory`, or
    one with random crops (`crop`), is decoded batch by batch; its files, and a test split, are validated first.

    Returns:
        Images (N, 3, H, W) uint8, or (N, 1, H, W) if gray.

    Raises:
        DataError, ConfigError: A folder, class or file is missing, empty, unknown, ambiguous or broken.
    """
    folder = expand_home(root)
    return images.build(read_layout(folder, layout), folder, pixels)
