"""Pictures that are drawn later, so that no figure can cost a result; and how they are drawn.

matplotlib reads files and environment variables of the user (matplotlibrc, MPLBACKEND, MATPLOTLIBRC). They may name a
backend that cannot be loaded, require LaTeX, or be unreadable. Figures here ignore them: they use the Agg or SVG canvas
and matplotlib's own default style.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec

from runner.decoration import decorative
from runner.engine.saving.storage import make_folder, write_atomic
from runner.user_paths import returning

_Arguments = ParamSpec("_Arguments")

# Equal figures give equal bytes
_STYLE = {"svg.hashsalt": "runner", "path.simplify": True}
_OPTIONS: dict[str, dict[str, Any]] = {"png": {"dpi": 110}, "svg": {"metadata": {"Date": None, "Creator": None}}}


@dataclass(frozen=True)
class Picture:
    """A figure that is not drawn yet.

    Attributes:
        figure: The name of the function that draws it, with its module.
        kind: The format, `png` or `svg`.
        make: Returns the matplotlib figure; may raise anything.
    """

    figure: str
    kind: str
    make: Callable[[], Any]

    def draw(self) -> bytes:
        """Return the bytes of the picture, drawn in our style; may raise anything."""
        with _own_style():
            file = io.BytesIO()
            self.make().savefig(file, format=self.kind, **_OPTIONS[self.kind])
            return file.getvalue()


def figure(kind: Literal["png", "svg"]) -> Callable[[Callable[_Arguments, Any]], Callable[_Arguments, Picture]]:
    """Return the decorator of a function that returns a matplotlib figure: it then returns a picture of this format."""

    def decorate(function: Callable[_Arguments, Any]) -> Callable[_Arguments, Picture]:
        name = f"{function.__module__}.{function.__name__}"

        @functools.wraps(function)
        def planned(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Picture:
            return Picture(name, kind, lambda: function(*args, **kwargs))

        return planned

    return decorate


def new_figure(width: float, height: float, **options: Any) -> Any:
    """Return an empty matplotlib figure with a canvas that needs no display; width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(empty)
    return empty


def draw_all(pictures: Mapping[str, Picture]) -> dict[str, bytes]:
    """Return the bytes of pictures by name; one that cannot be drawn is a line on standard error, and left out."""
    drawn = {}
    for name, picture in pictures.items():
        with decorative(f"figure {name}: not drawn"):
            drawn[name] = picture.draw()
    return drawn


def save_all(folder: Path, pictures: Mapping[str, bytes]) -> list[str]:
    """Write pictures into a folder by name and return the names; one that cannot be written is left out."""
    saved = []
    for name, content in pictures.items():
        with decorative(f"figure {name}: not saved"):
            with suppress(FileExistsError):
                make_folder((folder / name).parent)
            write_atomic(folder / name, content)
            saved.append(name)
    return saved


@contextmanager
def _own_style() -> Iterator[None]:
    """Set matplotlib's default style while the body draws, and drop its warnings, as of a letter that a font lacks."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib = _import_matplotlib()
            defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"}
            with matplotlib.rc_context({**defaults, **_STYLE}):
                yield
    finally:
        log.setLevel(level)


def _import_matplotlib() -> Any:
    """Return the module matplotlib, imported without the user's settings."""
    with ExitStack() as held:
        if "matplotlib" not in sys.modules:
            held.enter_context(_without_settings())
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.backends.backend_svg

    return matplotlib


@contextmanager
def _without_settings() -> Iterator[None]:
    """Hide MPLBACKEND and all files `matplotlibrc` while the body imports matplotlib, which fails on wrong ones."""
    changed = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    os.environ.pop("MPLBACKEND", None)
    os.environ["MATPLOTLIBRC"] = os.devnull
    try:
        with _outside_folder_with("matplotlibrc"):
            yield
    finally:
        for name, value in changed.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _outside_folder_with(name: str) -> Iterator[None]:
    """Leave the working folder while the body runs, if it has a file of this name: matplotlib reads it first of all."""
    if not os.path.lexists(name):
        yield
        return
    with returning():
        os.chdir("/")
        yield
