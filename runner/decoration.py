"""Decoration: figures, TensorBoard pages, the notebook and summaries, whose failure must not cost the result of a run.

Everything of this kind is made inside `decorative`, after the numbers of the run are written where that is possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import one_line
from runner.printing import write_stderr
from runner.status import ending


@contextmanager
def decorative(what: str) -> Iterator[None]:
    """Run the body; if it fails, print `what` and the reason as one line to standard error, and continue after it.

    A signal still ends the run, and so does an error that Python cannot recover from.

    Args:
        what: What is missing then, as in `figure curves.png: not drawn`.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        write_stderr(f"runner: warning: {one_line(f'{what} ({_reason(error)})')}\n")


def _reason(error: BaseException) -> str:
    """Return an exception in words, its type if it cannot say more."""
    try:
        return str(ending(error).reason)
    except Exception:
        return type(error).__name__
