"""The tags of the event file: those of the log, named so that TensorBoard shows loss and accuracy first.

TensorBoard has no setting for it: the names of tags decide. `metrics.jsonl`, `monitor` and the terminal keep the tags
of the log, and every tag of the event file still contains the name of the score, so that its search finds it.

- TIME SERIES sorts the groups (what stands before the first `/`) as numbers and letters and opens the first two.
- HPARAMS sorts all tags as plain text and shows the first five. These five are in every run that was validated.
  As text "10" comes before "2", as a number after it: the best scores are beside the last ones on HPARAMS, and below
  the curves on TIME SERIES.
"""

from __future__ import annotations

from functools import cache

# In every run that was validated
_SHARED = ("accuracy", "loss")
_TAGS = {
    **{f"val/{metric}": f"1 val/{metric}" for metric in _SHARED},
    **{f"_best/val_{metric}": f"10 best/val_{metric}" for metric in _SHARED},
    # Reference lines; a chart has no labels but tags
    "ratio/log10/_guide/1e-4": "ratio/log10/_guide/-4 small",
    "ratio/log10/_guide/1e-3": "ratio/log10/_guide/-3 usual",
    "ratio/log10/_guide/1e-2": "ratio/log10/_guide/-2 large",
}
_GROUPS = {"train": "2 train", "train_eval": "3 train_eval", "val": "4 val", "_best": "5 best"}


@cache
def board_tag(tag: str) -> str:
    """Return the tag of the event file for a tag of the log."""
    group, slash, rest = tag.partition("/")
    return _TAGS.get(tag) or f"{_GROUPS.get(group, group)}{slash}{rest}"
