"""Ensembles of trained models: combined predictions, honest statistics of their gain, selection, calibration.

Everything here takes log-probabilities and returns numbers or text; no file is read or written.

- `statistics`: combined predictions, their scores and gains, and the score against the number of members.
- `gains`: the interval of a gain over examples; disagreement and correlation of errors.
- `selection`: weights of members: uniform, and greedy with replacement.
- `calibration`: calibration scores, temperature scaling, disjoint halves of a split.
- `report`, `report_pages`: the report, on the terminal, as Markdown and HTML, and for TensorBoard.
- `figures`: its picture.
"""
