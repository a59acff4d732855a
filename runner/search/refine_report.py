"""The lines at the end of a refining search: its rounds, and the scores that its seeds did not choose."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from runner.engine.monitor import Monitor
from runner.search.records import RankedPoint
from runner.search.refine import Progress


def report_lines(rows: Sequence[RankedPoint], progress: Progress, monitor: Monitor) -> list[str]:
    """Return the lines: one for each round, why the rounds ended, the confirmed scores and their difference."""
    lines = list(progress.notes)
    if progress.reason:
        lines.append(f"the search ended: {progress.reason}")
    stages = {row.stage: row for row in rows if row.fresh}
    lines += [_score_in_words(row, monitor) for row in stages.values()]
    if not stages:
        lines.append(f"no {monitor.tag} of fresh seeds yet: those above chose the points, so they are too good")
    if "winner" in stages and "incumbent" in stages:
        lines.append(_difference_in_words(stages["winner"].fresh, stages["incumbent"].fresh, monitor))
    return lines


def _score_in_words(row: RankedPoint, monitor: Monitor) -> str:
    """Return the score of a confirmed point beside the one that it was chosen by."""
    words = ",".join("=".join(pair) for pair in row.words)
    sd = f" +- {statistics.stdev(row.fresh):.4f}" if len(row.fresh) > 1 else ""
    seeds = f"{len(row.fresh)} fresh seed{'s' if len(row.fresh) > 1 else ''}"
    chosen = f"{statistics.fmean(row.scores):.4f} on the {len(row.scores)} that chose it" if row.scores else "no others"
    return f"{row.stage:<9} {words}: {monitor.tag} {statistics.fmean(row.fresh):.4f}{sd} on {seeds} ({chosen})"


def _difference_in_words(winner: Sequence[float], incumbent: Sequence[float], monitor: Monitor) -> str:
    """Return how much better the winner is on the same fresh seeds, with a 95 % interval of the paired differences."""
    from scipy.special import stdtrit

    pairs = [monitor.sign * (one - other) for one, other in zip(winner, incumbent, strict=False)]
    mean = statistics.fmean(pairs)
    if len(pairs) < 2:
        return f"winner against incumbent: difference {mean:+.4f} on one fresh seed, so no interval"
    half = float(stdtrit(len(pairs) - 1, 0.975)) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    verdict = "better" if mean - half > 0 else "worse" if mean + half < 0 else "not distinguishable"
    between = f"95 % {mean - half:.4f} to {mean + half:.4f}, n = {len(pairs)}"
    return f"winner against incumbent: {verdict}, difference {mean:+.4f} ({between}; above 0 the winner is better)"
