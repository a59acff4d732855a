"""A comparison as Markdown with pictures beside it, and as one HTML page with everything inside."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from html import escape

from runner.comparing import figures, responses
from runner.comparing.report import Report
from runner.comparing.tables import (
    DAGGER,
    Table,
    cost_table,
    differences_table,
    markdown_table,
    other_scores_table,
    scores_table,
    statistics_table,
)
from runner.comparing.tables import escaped as in_markdown

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;display:block;overflow-x:auto}
td{white-space:nowrap}
td:first-child,td:last-child{white-space:normal}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
th{border-bottom:2px solid #888}
.warn{background:#fff3cd;border-left:4px solid #e0a800;padding:.5rem 1rem;margin:1rem 0}
img{max-width:100%}
footer{color:#666;border-top:1px solid #ddd;margin-top:2rem;padding-top:.5rem}
"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)  # a page that a browser itself keeps from asking for anything
TITLES = {
    "curves": "Learning curves",
    "seeds": "Every seed, and the differences",
    "response": "Score over each number that differs",
    "parallel": "Parallel coordinates",
    "importance": "Importance of the hyperparameters",
}
CAPTIONS = {
    "curves": "Mean over seeds; the band is one standard deviation (three seeds and more, else each seed is a thin "
    "line). Dashed: a run without score, to its last step.",
    "seeds": "Blue: p below .05 after Holm's adjustment. The intervals are not adjusted.",
    "response": "Dots: runs. Line: the best configuration at each value, by its mean.",
    "parallel": "A line for each configuration, coloured by its mean score.",
}


def pictures(report: Report) -> dict[str, bytes]:
    """Return the pictures that this comparison has something to show in, by name."""
    rows, rule = report.rows, report.rule
    found = {"curves": figures.curves(rows, rule), "seeds": figures.seeds(rows, rule)}
    if responses.numeric(rows):
        found["response"] = responses.response(rows, rule)
    if len({key for row in rows for key in row.group.values}) > 1 and any(row.scores for row in rows):
        found["parallel"] = responses.parallel(rows, rule)
    if report.importance.drops:
        found["importance"] = figures.bars(report.importance)
    return found


def sections(report: Report) -> dict[str, Table]:
    """Return the tables by their headings."""
    return {
        "Statistics": statistics_table(report),
        "What differs": differences_table(report),
        "Scores": other_scores_table(report),
        "Cost": cost_table(report),
    }


def headline(report: Report) -> str:
    """Return what was compared."""
    many = f"{report.runs} runs of {len(report.rows)} configurations" if len(report.rows) > 1 else f"{report.runs} runs"
    return f"{many}{f', against {report.against.label}' if len(report.rows) > 1 else ' of one configuration'}"


def source(report: Report) -> str:
    """Return where the runs were looked for."""
    return ", ".join(report.looked_at)


def remarks(report: Report) -> list[str]:
    """Return the notes, with what the dagger means where there is one."""
    dagger = [f"{DAGGER} a seed is missing from this mean, see above"] if any(r.failed for r in report.rows) else []
    return [*dagger, *report.notes]


def markdown(report: Report, drawn: Mapping[str, bytes], command: str) -> str:
    """Return the comparison as Markdown; the pictures lie beside it as `<name>.svg`."""
    lines = ["# Comparison", "", in_markdown(headline(report)) + ".", ""]
    lines += [f"> **Mind:** {in_markdown(line)}\n>" for line in report.banners]
    lines += ["", *markdown_table(scores_table(report)), "", *(f"- {in_markdown(line)}" for line in remarks(report))]
    for title, table in sections(report).items():
        lines += ["", f"## {title}", "", *(markdown_table(table) or ["Nothing."])]
    for name in drawn:
        lines += ["", f"## {TITLES[name]}", "", f"![{TITLES[name]}]({name}.svg)"]
        lines += ["", CAPTIONS[name]] if name in CAPTIONS else []
    lines += ["", f"Importance: {in_markdown(report.importance.method)}."]
    lines += ["", f"Made by `{command}` from {in_markdown(source(report))}."]
    return "\n".join(lines) + "\n"


def html(report: Report, drawn: Mapping[str, bytes], command: str) -> str:
    """Return the comparison as one HTML page that asks for nothing from anywhere, and has no script."""
    parts = [f"<h1>Comparison</h1><p>{escape(headline(report))}.</p>"]
    parts += [f'<p class="warn">{escape(line)}</p>' for line in report.banners]
    parts += [html_table(scores_table(report)), items(remarks(report))]
    for name, picture in drawn.items():
        data = base64.b64encode(picture).decode()
        parts.append(f'<h2>{TITLES[name]}</h2><img alt="{TITLES[name]}" src="data:image/svg+xml;base64,{data}">')
        parts.append(f"<p>{CAPTIONS[name]}</p>" if name in CAPTIONS else "")
    parts.append(f"<p>Importance: {escape(report.importance.method)}.</p>")
    for title, table in sections(report).items():
        parts.append(f"<h2>{title}</h2>{html_table(table)}")
    parts.append(f"<h2>Runs</h2>{items(list(folders(report)))}")
    parts.append(f"<footer>Made by <code>{escape(command)}</code> from {escape(source(report))}</footer>")
    head = f'<meta charset="utf-8">{POLICY}<title>Comparison</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def folders(report: Report) -> Iterator[str]:
    """Yield each run's folder and how it ended."""
    for row in report.rows:
        for run in (*row.group.runs, *row.group.repeats):
            yield f"{run.folder}: {run.result.status}{f', {run.result.reason}' if run.result.reason else ''}"


def html_table(rows: Table) -> str:
    """Return rows as a table of HTML."""
    if not rows:
        return "<p>Nothing.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{html_cells(*row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_cells(first: str, *others: str) -> str:
    """Return a row's cells; in the first, a configuration, a line may end after each comma."""
    return f"<td>{escape(first).replace(',', ',<wbr>')}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in others)


def items(lines: list[str]) -> str:
    """Return lines as a list of HTML."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
