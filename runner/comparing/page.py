"""A comparison as Markdown with separate pictures, and as one HTML page with everything inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from runner.comparing import figures, importance, responses, search_figures
from runner.comparing.front_tables import draw_front, front_table
from runner.comparing.html import html_document, html_items, html_picture, html_table
from runner.comparing.report import Report, limit_note, limited
from runner.comparing.study_tables import draw_profiles, profiles_table, times_table
from runner.comparing.tables import (
    DAGGER,
    Table,
    calibration_table,
    cost_table,
    differences_table,
    escape_markdown,
    importance_table,
    markdown_table,
    other_scores_table,
    scores_table,
    statistics_table,
)
from runner.engine.figures.picture import Picture, draw_all
from runner.printing import counted

_TITLES = {
    "profiles": "Performance profiles",
    "pareto": "Pareto front",
    "curves": "Learning curves",
    "seeds": "Scores per seed and differences",
    "response": "Score against each numeric hyperparameter",
    "parallel": "Parallel coordinates",
    "isolation": "Best score at each value",
    "infeasible": "Trainings without a score",
    "budgets": "Best score of smaller budgets",
    "importance": "Importance of the hyperparameters",
}
_CAPTIONS = {
    "profiles": "The share of the workloads on which a configuration is within a factor of the fastest. In brackets: "
    "the area from 1 to 4, over its largest value.",
    "pareto": "Blue: configurations that no other one beats; the numbers are their rows in the table. Gray: another "
    "one is as good in all objectives and better in one.",
    "curves": "Mean over seeds; the band is one standard deviation (three seeds and more, else each seed is a thin "
    "line). Dashed: a run without score, to its last step.",
    "seeds": "Blue: p below .05 after Holm's adjustment. Intervals are not adjusted.",
    "response": "Dots: runs. Line: the mean of the best configuration at each value.",
    "parallel": "A line for each configuration, colored by its mean score.",
    "isolation": "The best mean score of all configurations in a range of one hyperparameter, whatever the others are. "
    "n configurations are in the range: where n is small, the best may not have been found.",
    "infeasible": "The share of trainings that ended without a score, with Wilson's 95 % interval.",
    "budgets": "The best mean score of so many of these configurations, over all draws: median, and 5 to 95 %.",
}


# Rows of a table, runs of the list, and warnings; the CSV files have all
_MOST_ROWS = 200
_MOST_RUNS = 500
_MOST_WARNINGS = 50
_MORE_WARNINGS = "; runs.csv has the status of each run"


def draw_pictures(report: Report) -> dict[str, bytes]:
    """Return the pictures of a comparison by name, as SVG, without those that have no content or cannot be drawn."""
    rows, criterion = report.rows, report.criterion
    found: dict[str, Picture] = {
        "curves": figures.draw_curves(rows, criterion, report.scores),
        "seeds": figures.draw_seeds(rows, criterion),
    }
    if report.race and len(report.race.settings) > 1:
        found["profiles"] = draw_profiles(report.race)
    if report.front:
        found["pareto"] = draw_front(report.front)
    if responses.numeric_keys(rows):
        found["response"] = responses.draw_response(rows, criterion)
    if len({key for row in rows for key in row.group.values}) > 1 and any(row.scores for row in rows):
        found["parallel"] = responses.draw_parallel(rows, criterion)
    if search_figures.search_keys(rows):
        found["isolation"] = search_figures.draw_isolation(rows, criterion)
    if search_figures.infeasible_key(rows):
        found["infeasible"] = search_figures.draw_infeasible(rows)
    if search_figures.has_budgets(rows):
        found["budgets"] = search_figures.draw_budgets(rows, criterion)
    if report.importance.effects:
        found["importance"] = importance.draw_importance(report.importance)
    return draw_all(found)


def _sections(report: Report) -> dict[str, Table]:
    """Return the tables below the pictures, by heading."""
    first = report.first(_MOST_ROWS)
    calibration, shares = calibration_table(first), importance_table(report)
    race = report.race
    timed = {f"Time to {race.target}": times_table(race, _MOST_ROWS)} if race else {}
    profiles = profiles_table(race, _MOST_ROWS) if race else []
    return {
        **timed,
        **({"Configurations on the Pareto front": front_table(report.front, _MOST_ROWS)} if report.front else {}),
        **({"Performance profiles": profiles} if profiles else {}),
        "Statistics": statistics_table(first),
        "Hyperparameters that differ": differences_table(report),
        **({"Variance explained": shares} if shares else {}),
        "Scores": other_scores_table(first),
        **({"Calibration": calibration} if calibration else {}),
        "Cost": cost_table(first),
    }


def _caption(name: str, report: Report) -> str:
    """Return what a picture shows, and how much of it if that is not all."""
    most = {"curves": figures.MOST_DRAWN, "seeds": figures.MOST_DRAWN, "parallel": responses.MOST_LINES}.get(name)
    words = [_CAPTIONS[name]] if name in _CAPTIONS else []
    if most and len(report.rows) > most:
        words.append(f"{most} of {len(report.rows)} configurations: the baseline and the best.")
    if name == "response" and report.runs > responses.MOST_DOTS:
        words.append(f"Of {report.runs} runs at most {responses.MOST_DOTS} are dots, at equal distances in their rank.")
    return " ".join(words)


def _method(report: Report) -> str:
    """Return how the importance was computed, and what biases it."""
    found = report.importance
    return f"{found.method}; warning: {found.warning}" if found.warning else found.method


def headline(report: Report) -> str:
    """Return what was compared, in one line."""
    runs, configurations = counted(report.runs, "run"), len(report.rows)
    if configurations == 1:
        return f"{runs} of one configuration"
    return f"{runs} of {configurations} configurations, against {report.baseline.label}"


def _source(report: Report) -> str:
    """Return where the runs were read from."""
    return ", ".join(report.patterns)


def remarks(report: Report) -> list[str]:
    """Return the notes, with the meaning of the dagger if the table has one."""
    dagger = [f"{DAGGER} runs are excluded from this mean, see above"] if any(r.failed for r in report.rows) else []
    return [*dagger, *report.notes]


def markdown_page(report: Report, drawn: Mapping[str, bytes], command: str) -> str:
    """Return the comparison as Markdown; its pictures are `<name>.svg` in the same folder."""
    lines = ["# Comparison", "", escape_markdown(headline(report)) + ".", ""]
    shown = limited(report.warnings, _MOST_WARNINGS, _MORE_WARNINGS)
    lines += [f"> **Warning:** {escape_markdown(line)}\n>" for line in shown]
    lines += [
        "",
        *markdown_table(scores_table(report.first(_MOST_ROWS))),
        "",
        *(f"- {line}" for line in limit_note(_MOST_ROWS, len(report.rows))),
        *(f"- {escape_markdown(line)}" for line in remarks(report)),
    ]
    for title, table in _sections(report).items():
        lines += ["", f"## {escape_markdown(title)}", "", *(markdown_table(table) or ["None."])]
    for name in drawn:
        lines += ["", f"## {_TITLES[name]}", "", f"![{_TITLES[name]}]({name}.svg)"]
        lines += ["", caption] if (caption := _caption(name, report)) else []
    lines += ["", f"Importance: {escape_markdown(_method(report))}."]
    lines += ["", f"Generated by `{command}` from {escape_markdown(_source(report))}."]
    return "\n".join(lines) + "\n"


def html_page(report: Report, drawn: Mapping[str, bytes], command: str) -> str:
    """Return the comparison as one HTML page without scripts that loads nothing."""
    parts = [f"<h1>Comparison</h1><p>{escape(headline(report))}.</p>"]
    shown = limited(report.warnings, _MOST_WARNINGS, _MORE_WARNINGS)
    parts += [f'<p class="warn">{escape(line)}</p>' for line in shown]
    notes = [*limit_note(_MOST_ROWS, len(report.rows)), *remarks(report)]
    parts += [html_table(scores_table(report.first(_MOST_ROWS))), html_items(notes)]
    for name, picture in drawn.items():
        parts.append(f"<h2>{_TITLES[name]}</h2>{html_picture(_TITLES[name], picture, 'svg+xml')}")
        parts.append(f"<p>{caption}</p>" if (caption := _caption(name, report)) else "")
    parts.append(f"<p>Importance: {escape(_method(report))}.</p>")
    for title, table in _sections(report).items():
        parts.append(f"<h2>{escape(title)}</h2>{html_table(table)}")
    parts.append(f"<h2>Runs</h2>{html_items(limited(list(_folders(report)), _MOST_RUNS, ' in runs.csv'))}")
    parts.append(f"<footer>Generated by <code>{escape(command)}</code> from {escape(_source(report))}</footer>")
    return html_document("Comparison", parts)


def _folders(report: Report) -> Iterator[str]:
    """Yield the folder and the status of each run."""
    for row in report.rows:
        for run in (*row.group.runs, *row.group.repeats):
            yield f"{run.folder}: {run.result.status}{f', {run.result.reason}' if run.result.reason else ''}"
