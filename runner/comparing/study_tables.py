"""The times to a target as tables, as CSV and as a picture of performance profiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runner.comparing.csv_tables import to_csv
from runner.comparing.figures import label_axes
from runner.comparing.studies import MAX_FACTOR, UNITS, Race, share_within
from runner.comparing.tables import Table
from runner.engine.figures.picture import figure, new_figure

_NEVER = "never"
# Factors at which the table has the profile
_FACTORS = (1.0, 2.0, MAX_FACTOR)
# Settings in the picture
_MOST_LINES = 10


def times_table(race: Race, most: int | None = None) -> Table:
    """Return the median time of each setting on each workload, the fastest setting in steps first."""
    order = sorted(race.entries, key=lambda entry: (race.workloads.index(entry.workload), entry.time("steps")))
    one = len(race.workloads) == 1
    return [
        {
            **({} if one else {"workload": entry.workload}),
            "configuration": entry.setting,
            "arrived": f"{sum(math.isfinite(each.steps) for each in entry.arrivals)}/{len(entry.arrivals)}",
            "studies": str(len(entry.studies)),
            "steps": _time(entry.time("steps"), ",.0f"),
            "seconds": _time(entry.time("seconds"), ".3g"),
        }
        for entry in order[:most]
    ]


def profiles_table(race: Race, most: int | None = None) -> Table:
    """Return the area under each setting's profile, and the profile in steps at some factors; the best first.

    Empty for one setting, which has nobody to be compared with.
    """
    if len(race.settings) < 2:
        return []
    areas = {unit: race.profiles(unit) for unit in UNITS}
    shares = race.factors("steps")
    order = sorted(race.settings, key=lambda setting: (-areas["steps"][setting], -areas["seconds"][setting]))
    return [
        {
            "configuration": setting,
            "profile (steps)": f"{areas['steps'][setting]:.3f}",
            "profile (seconds)": f"{areas['seconds'][setting]:.3f}",
            **{f"within {factor:g}x": f"{share_within(shares[setting], factor):.0%}" for factor in _FACTORS},
        }
        for setting in order[:most]
    ]


def times_csv(race: Race) -> str:
    """Return a row for each setting on each workload: medians, and the fastest trial of each study; `inf` is never."""
    areas = {unit: race.profiles(unit) for unit in UNITS}
    return to_csv(
        [
            {
                "target": str(race.target),
                "configuration": entry.setting,
                "workload": entry.workload,
                "runs": len(entry.arrivals),
                "arrived": sum(math.isfinite(each.steps) for each in entry.arrivals),
                "left_out": entry.left_out,
                "studies": len(entry.studies),
                **{unit: entry.time(unit) for unit in UNITS},
                **{f"{unit}_of_studies": " ".join(f"{time:.6g}" for time in entry.fastest(unit)) for unit in UNITS},
                **{f"profile_{unit}": areas[unit][entry.setting] for unit in UNITS},
            }
            for entry in race.entries
        ]
    )


def _time(value: float, form: str) -> str:
    """Return a time, `never` if it is infinite."""
    return f"{value:{form}}" if math.isfinite(value) else _NEVER


@figure("svg")
def draw_profiles(race: Race) -> Any:
    """Draw the share of workloads within each factor of the best time, a line for each setting."""
    sheet = new_figure(10, 4, layout="constrained")
    panels: Sequence[Any] = sheet.subplots(1, len(UNITS), sharey=True)
    for axes, unit in zip(panels, UNITS, strict=True):
        areas, factors = race.profiles(unit), race.factors(unit)
        for number, setting in enumerate(sorted(race.settings, key=lambda each: -areas[each])[:_MOST_LINES]):
            ends = [1.0, *sorted(factor for factor in set(factors[setting]) if 1 < factor < MAX_FACTOR), MAX_FACTOR]
            shares = [share_within(factors[setting], end) for end in ends]
            axes.step(ends, shares, where="post", color=f"C{number}", label=f"{setting} ({areas[setting]:.2f})")
        axes.set_ylim(-0.03, 1.03)
        label_axes(axes, xlabel=f"factor of the fewest {unit} to {race.target}")
        axes.legend(frameon=False, fontsize=8, title="area")
    label_axes(panels[0], ylabel="share of workloads")
    return sheet
