"""The notebook of all runs, `outputs/notebook.md`.

- `book`: records runs in the file, or rebuilds it from the run folders; keeps the user's lines.
- `entries`: the lines of one run and the cells of one trial, read from their folders.
- `sweep_block`: the block of a sweep: what all trials share, and its table.
"""
