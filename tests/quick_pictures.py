"""Pictures whose figures are made but not rendered: rendering takes most of the time of a small run."""

from __future__ import annotations

import base64

import pytest

_WHITE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
_BLANK = {"png": base64.b64decode(_WHITE), "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'}
_RENDERED: list = []  # the method itself


def quicken(patch: pytest.MonkeyPatch) -> None:
    """Let `Picture.draw` return a blank picture where the figure can be made; it raises what making it raises."""
    from runner.engine.figures import picture

    _RENDERED.append(picture.Picture.draw)

    def draw(self: picture.Picture) -> bytes:
        with picture._own_style():
            self.make()
        return _BLANK[self.kind]

    patch.setattr(picture.Picture, "draw", draw)


def render(patch: pytest.MonkeyPatch) -> None:
    """Undo `quicken` where it was done."""
    from runner.engine.figures import picture

    if _RENDERED:
        patch.setattr(picture.Picture, "draw", _RENDERED[0])


def save_blank(figure, file, *, format, **options) -> None:  # noqa: A002
    """Write a blank picture, in the place of `Figure.savefig`."""
    file.write(_BLANK[format])
