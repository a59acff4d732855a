"""The notebook of all runs, `outputs/notebook.md`.

- `book`: records runs in the file, or rebuilds it from the run folders; keeps the user's lines.
- `entries`: the lines of one run, one sweep and one trial, read from their folders.
"""
