"""HTML pages: one file without scripts that loads nothing and is readable on a phone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from runner.comparing.tables import Table

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;display:block;overflow-x:auto}
td{white-space:nowrap}
td:first-child,td:last-child{white-space:normal}
th,td{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}
th{border-bottom:2px solid #888}
.warn{background:#fff3cd;border-left:4px solid #e0a800;padding:.5rem 1rem;margin:1rem 0}
img{max-width:100%}
footer{color:#666;border-top:1px solid #ddd;margin-top:2rem;padding-top:.5rem}
.figure{overflow-x:auto}
li,p,code{overflow-wrap:anywhere}
@media (max-width:40rem){
body{margin:1rem auto;padding:0 .75rem}
ul{padding-left:1.2rem}
td:last-child{min-width:9rem}
th,td{padding:.25rem .4rem;font-size:14px}
th:first-child,td:first-child{position:sticky;left:0;background:#fff;min-width:9rem;max-width:45vw;overflow-wrap:anywhere}
.figure img{max-width:none;width:max(100%,38rem)}
}
@media (prefers-color-scheme:dark){
body{color:#ddd;background:#17191c}
th,td,footer{border-color:#3a3f46}
th{border-bottom-color:#888}
.warn{background:#3a3114;border-left-color:#e0a800}
img{background:#fff;border-radius:4px}
footer{color:#aaa}
}
@media (max-width:40rem) and (prefers-color-scheme:dark){th:first-child,td:first-child{background:#17191c}}
"""
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)  # the browser then loads nothing from anywhere
# Phones otherwise lay a page out for a wide screen and shrink it
_FOR_SCREENS = (
    '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
)


def html_document(title: str, parts: Sequence[str]) -> str:
    """Return a page with a title and the HTML of its parts."""
    head = f'<meta charset="utf-8">{_FOR_SCREENS}{_POLICY}<title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def html_picture(title: str, picture: bytes, kind: str) -> str:
    """Return a picture of an image type, such as `png`, with its bytes inside."""
    data = base64.b64encode(picture).decode()
    return f'<div class="figure"><img alt="{escape(title)}" src="data:image/{kind};base64,{data}"></div>'


def html_table(rows: Table) -> str:
    """Return rows as an HTML table."""
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{_html_cells(*row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cells(first: str, *others: str) -> str:
    """Return the cells of a row; the first one may break after each comma."""
    return f"<td>{escape(first).replace(',', ',<wbr>')}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in others)


def html_items(lines: list[str]) -> str:
    """Return lines as an HTML list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
