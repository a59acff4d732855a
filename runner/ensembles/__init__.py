"""Ensembles of trained models: combined predictions, honest statistics of their gain, selection, calibration, soups.

`runner.engine.saving.ensemble_file` has their members (`ensemble.json`), `runner.engine.combining` what combines them.

- `model`: the model of an ensemble: images in, combined log-probabilities out.
- `stacked`: members of one architecture evaluated in one forward pass.
- `soup`: weights averaged over models, and the loss between two of them.

The others take log-probabilities and return numbers or text; they read and write no file:

- `statistics`: combined predictions, their scores and gains, and the score against the number of members.
- `gains`: the interval of a gain over examples; disagreement and correlation of errors.
- `selection`: weights of members: uniform, and greedy with replacement.
- `calibration`: calibration scores, temperature scaling, disjoint halves of a split.
- `report`, `report_pages`: the report, on the terminal, as Markdown and HTML, and for TensorBoard.
- `figures`: its picture.
"""
