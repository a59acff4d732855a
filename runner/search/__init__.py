"""Hyperparameter search with Optuna.

- `space`: search spaces, with axes that apply to some choices only.
- `decimals`: ranges of numbers in decimal notation.
- `samplers`: grid, random and quasi-random points; Optuna's adaptive samplers.
- `exclusions`: points that are never tried.
- `pruning`: stops unpromising runs early.
- `records`: the settings of a search, its points and their results.
- `study`: the next point, the results, and the points that a killed process left.
- `refine`: the rounds of a refining search; `ranges`: their ranges; `candidates`: their points with scores.
- `refined_trials`: the trainings of a refining search in a study; `refine_report`: what it says at its end.
- `budgets`: the best score so far, and of as many random trials; `scientific`: settings compared at their best.
- `proposals`: adds the next point to a study.
- `tally`: counts over the trials of a study, without looking at finished ones again.
- `stored_trials`: the trials of a study that count as points, and their ranking.
- `compatible`: checks that an existing study is one of this search.
- `storage`: the journal or database of a study.
- `storage_lock`: the lock of a shared storage.
- `owners`: the sweeps of a shared study that still run.
- `journal`: the journal, a file of records.
- `ranking`: the table and the files of the results.
"""
