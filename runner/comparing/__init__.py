"""Compare runs: read them, group them by configuration, test differences; no conclusion that the seeds do not support.

- `runs`: training runs, read from their folders.
- `groups`: configurations (runs that differ in their seed only) and their labels.
- `statistics`: intervals, tests and power of paired differences; plain numbers in and out.
- `curves`: curves, costs and update ratios of a configuration.
- `verdicts`: each configuration against the baseline.
- `score_meaning`: scores with several meanings.
- `comparability`: limits of a comparison: errors, warnings and notes.
- `left_out`: the runs that a comparison leaves out.
- `report`: the complete comparison.
- `tables`, `csv_tables`: its numbers for the screen, Markdown and HTML, and as CSV.
- `targets`, `studies`, `study_tables`: steps and seconds to a target score, and performance profiles.
- `importance`: the share of the variance that each hyperparameter explains; `samplers`: those that bias it.
- `pareto`, `front_tables`: configurations that no other one beats in all of several objectives.
- `figures`, `responses`, `search_figures`: its pictures.
- `html`: HTML pages that load nothing.
- `page`: the Markdown file and the HTML page.
"""
