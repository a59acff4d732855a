"""Figures as PNG bytes, drawn by matplotlib without a display.

- `curves.py`: loss and accuracy of a run
- `preview.py`: learning-rate schedule and augmented images (`task=preview`)
- `search.py`: grid and random search side by side (`task=grid_vs_random`)
"""

from __future__ import annotations

import io
from typing import Any


def new_figure(width: float, height: float, **options: Any) -> Any:
    """Return an empty matplotlib figure with a canvas that needs no display; width and height are in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    """Encode a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
