"""Figures as PNG or SVG bytes, drawn by matplotlib without a display.

A function under `@figure` returns a `Picture`, which is drawn later: after the result of the run is written, and where
a failure is one line.

- `picture.py`: pictures that are drawn later, and how they are drawn: our style, no settings of the user
- `curves.py`: loss and accuracy of a run
- `classes.py`: confusion matrix and reliability diagram
- `preview.py`: learning-rate schedule and augmented images (`task=preview`)
- `search.py`: grid and random search side by side (`task=grid_vs_random`)
"""
