"""`/-/workers` for eyes: JSON, a table for terminals, a page for browsers that looks again every two seconds. Sans-io."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Literal
from urllib.parse import parse_qs

from .errors import BadRequest
from .standing import Row, View, word

Format = Literal["json", "text", "html"]

CONTENT_TYPES: dict[Format, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
# The page needs nothing from anywhere, and what stands in it came from strangers' registrations.
HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Vary", "Accept"),
)
LONGEST = 40  # characters of an id or a name that are shown


def wanted(query: str, accept: bytes) -> Format:
    """`?format=` wins over Accept; JSON is for who does not say. Raises BadRequest."""
    asked = parse_qs(query, keep_blank_values=True).get("format") if query else None
    if asked is not None:
        if asked[0] in CONTENT_TYPES:
            return asked[0]
        raise BadRequest(f"format={asked[0]!r}: expected json, text or html")
    # A browser names HTML first; who names JSON at all wants it.
    if b"application/json" in accept:
        return "json"
    return "html" if b"text/html" in accept else "text" if b"text/plain" in accept else "json"


def page(seen: View, format: Format) -> bytes:
    """The body, of CONTENT_TYPES[format]; HEADERS go with it."""
    return {"json": as_json, "text": as_text, "html": as_html}[format](seen)


def as_json(seen: View) -> bytes:
    return json.dumps(seen).encode() + b"\n"


COLUMNS = ("service", "worker", "address", "version", "state", "for", "weight", "in flight", "latency", "failures")
NUMBERS = frozenset(("for", "weight", "in flight", "latency", "failures"))


def as_text(seen: View) -> bytes:
    """Columns line up where every character is as wide as any other."""
    table = [tuple(column.upper() for column in COLUMNS), *(_cells(name, row) for name, row in _rows(seen))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column in NUMBERS else cell.ljust(width)
            for column, cell, width in zip(COLUMNS, cells, widths, strict=True)
        ).rstrip()
        for cells in table
    ]
    return "\n".join([_headline(seen), "", *lines, ""]).encode()


STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #60646c; --line: #e0e1e6; --stripe: #f7f8fa;
  --good: #18794e; --wait: #ad5700; --bad: #ce2c31; --bar: #5b8def; }
@media (prefers-color-scheme: dark) { :root { --page: #111315; --text: #edeef0; --soft: #a0a4ab; --line: #2e3135;
  --stripe: #18191b; --good: #3dd68c; --wait: #ffca16; --bad: #ff9592; --bar: #70a1ff; } }
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 72rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0; } h1 + p { margin: .15rem 0 1.5rem; color: var(--soft); }
h2 { font-size: 1rem; margin: 1.75rem 0 .4rem; } h2 small { font-weight: normal; color: var(--soft); margin-left: .5em; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: .85rem; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid var(--line); }
tr:nth-child(even) td { background: var(--stripe); }
.n { text-align: right; } td.n { min-width: 3.5em; } td:first-child { font-family: ui-monospace, monospace; }
b { font-weight: 500; } b::before { content: "\\25cf"; margin-right: .4em; }
.good { color: var(--good); } .wait { color: var(--wait); } .bad { color: var(--bad); }
i { display: inline-block; height: .6em; margin-right: .5em; border-radius: 2px; background: var(--bar); }
.soft { color: var(--soft); }
"""
# Of the words that standing.word() has; any other is bad news.
TONES = {
    "passing": "good",
    **dict.fromkeys(("starting", "draining", "busy", "trial", "suspect"), "wait"),
    **dict.fromkeys(("disabled", "resting"), "soft"),
}


def as_html(seen: View) -> bytes:
    """One file, no script; the text in it is escaped."""
    busiest = max((row["in_flight"] for _, row in _rows(seen)), default=0)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Workers · Fairway</title>'
        f"<style>{STYLE}</style><h1>Fairway workers</h1><p>{_headline(seen)}</p>"
    ]
    for name, members in seen["services"].items():
        ready, in_flight = sum(row["available"] for row in members), sum(row["in_flight"] for row in members)
        parts.append(
            f"<h2>{escape(shown(name))}<small>{ready} of {len(members)} ready · {in_flight} in flight</small></h2>"
            "<div><table><thead><tr>"
        )
        parts += [f"<th{_side(column)}>{column}</th>" for column in COLUMNS[1:]]
        parts.append("</tr></thead><tbody>")
        parts += [_line(name, row, busiest) for row in members]
        parts.append("</tbody></table></div>")
    if not seen["services"]:
        parts.append("<p>No worker has registered yet.</p>")
    return "".join(parts).encode()


def _line(service: str, row: Row, busiest: int) -> str:
    cells = []
    for column, cell in zip(COLUMNS[1:], _cells(service, row)[1:], strict=True):
        text = escape(cell)
        if column == "state":
            text = f'<b class="{TONES.get(cell, "bad")}">{text}</b>'
        elif column == "in flight" and row["in_flight"]:
            text = f'<i style="width:{4 * row["in_flight"] / busiest:.2f}em"></i>{text}'
        cells.append(f"<td{_side(column)}>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _side(column: str) -> str:
    return ' class="n"' if column in NUMBERS else ""


def _headline(seen: View) -> str:
    """Words of ours only: nothing to escape."""
    members = list(_rows(seen))
    registry = "connected" if seen["registry_connected"] else "away: this is the last list it gave"
    return (
        f"mode {seen['mode']} · registry {registry} · {_many(len(members), 'worker')}, "
        f"{sum(row['available'] for _, row in members)} ready · {sum(row['in_flight'] for _, row in members)} in flight"
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _rows(seen: View) -> Iterator[tuple[str, Row]]:
    return ((name, row) for name, members in seen["services"].items() for row in members)


def _cells(service: str, row: Row) -> tuple[str, ...]:
    """One for each of COLUMNS."""
    state = word(row)
    host = f"[{row['host']}]" if ":" in row["host"] else row["host"]
    return (
        shown(service),
        shown(row["id"]),
        f"{host}:{row['port']}",
        shown(row["version"]) or "-",
        state,
        f"{left:.0f} s" if (left := {"ejected": row["ejected_for"], "busy": row["busy_for"]}.get(state)) else "-",
        str(row["weight"]),
        str(row["in_flight"]),
        f"{row['latency'] * 1000:.1f} ms" if row["latency"] else "-",
        str(sum(row["failures"].values())),
    )


def shown(text: str) -> str:
    """Cut, and without what a terminal obeys or a reader does not see."""
    cut = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in cut)
