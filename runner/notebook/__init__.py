"""The notebook of all runs, `outputs/notebook.md`.

- `book`: records runs in the file, or writes it again from the run folders; its sections and the user's own lines.
- `entries`: the lines of one run, one sweep and one trial, read from their folders.
"""
