"""Hyperparameter search with Optuna.

- `space`: search spaces, with axes that apply to some choices only.
- `samplers`: grid, random and quasi-random points; Optuna's adaptive samplers.
- `pruning`: stops unpromising runs early.
- `records`: the settings of a search, its points and their results.
- `study`: the next point, the results, and the points that a killed process left.
- `storage`: the journal or database of a study.
- `ranking`: the table and the files of the results.
"""
